"""The step xsm-policy."""

from __future__ import annotations

from typing import Final

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from testcases._flask import Flask
from testcases._waiting import Stopwatch

DEFAULT: Final = "default"
"""The policy of the tree itself."""


@step("xsm-policy", timeout_s=60)
def xsm_policy(ctx: StepContext) -> None:
    """The running policy is replaced by the job's own (*load*), and in the end by the tree's (*restore*)."""
    flask = Flask(ctx.host())
    match ctx.args.get("mode"):
        case "load":
            policy = ctx.xsm_policy(ctx.runvars.require("xsm_policy"))
            ctx.log(f"{policy.test.name}: {policy.test.summary}")
        case "restore":
            policy = ctx.xsm_policy(DEFAULT)
        case mode:
            raise LabBug(f"xsm-policy has no mode {mode!r}")
    watch = Stopwatch()
    flask.load(policy.binary)
    labels = flask.labels()
    if ":dom0_t" not in labels.get("Domain-0", ""):
        raise flask.failure(f"under the new policy domain 0 should still be dom0_t, but is {labels.get('Domain-0')}")
    ctx.log(f"{flask.host.name}: {len(policy.binary)} bytes of policy loaded in {watch.seconds} s")
    # what was denied so far was asked for: from here on xsm-audit counts
    ctx.runvars.set(f"{ctx.role}_xsm_from", flask.host.console.offset())
