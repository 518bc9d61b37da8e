"""The step support-check."""

from __future__ import annotations

from lab.errors import Blocked, LabBug
from lab.flights.steps import StepContext, step
from testcases._readings import read_all
from testcases._support import SUPPORT


@step("support-check", timeout_s=60)
def support_check(ctx: StepContext) -> None:
    """What the job tests exists at all in this Xen and on this host; otherwise the job is blocked, and says why."""
    needs = ctx.args.get("needs", "")
    support = SUPPORT.get(needs)
    if support is None:
        raise LabBug(f"support-check knows no {needs!r}", hint=f"there are: {', '.join(SUPPORT)}")
    host = ctx.host()
    if reason := support.missing(read_all(host.shell, support.commands), ctx.runvars):
        raise Blocked(f"{host.name}: no support: {reason}")
    ctx.log(f"{host.name}: {needs} is supported")
