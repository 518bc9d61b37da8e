"""The step xsm-audit."""

from __future__ import annotations

from collections import Counter

from lab.flights.steps import StepContext, step
from lab.flights.xsm import parse_avc
from testcases._flask import Flask, denied_in, shown, unexpected


@step("xsm-audit", timeout_s=60)
def xsm_audit(ctx: StepContext) -> None:
    """The policy denied nothing that the job did: what works without XSM needs no more than the policy grants."""
    host, flask = ctx.host(), Flask(ctx.host())
    start = ctx.runvars.integer(f"{ctx.role}_xsm_from", 0, low=0, high=10**9)
    before, since = host.console.read(0, start), host.console.read(start)
    # Xen's log is a ring, and the console may lag behind it: what either of them has counts
    log = flask.log()
    logged = Counter(denied_in(log)) - Counter(denied_in(before.decode(errors="replace")))
    seen = logged | Counter(denied_in(since.decode(errors="replace")))
    if denied := unexpected(seen.elements()):
        lines = [avc for avc in parse_avc(since.decode(errors="replace") + log) if avc.denied]
        raise flask.failure(f"the policy denied what the job needs: {shown(denied)}", lines)
    ctx.log(f"{host.name}: no denial" if not seen else f"{host.name}: harmless denials only: {shown(seen)}")
