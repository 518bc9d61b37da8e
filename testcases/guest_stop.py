"""The step guest-stop."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, read_life, require_gone
from testcases._waiting import Stopwatch


@step("guest-stop", timeout_s=300)
def guest_stop(ctx: StepContext) -> None:
    """The guest lives, is asked to shut down, and does so by itself: its kernel says so, and its domain is gone."""
    host = ctx.host()
    read_life(ctx, host)
    console = host.toolstack.console(GUEST)
    watch = Stopwatch()
    host.toolstack.shutdown(GUEST)
    took = watch.seconds
    require_gone(host, "shutdown")
    said = "Power down" in console.text()[-2000:]
    ctx.runvars.set("guest_stop_s", took)
    ctx.log(f"{host.name}: gone after {took} s; its kernel {'said' if said else 'did not visibly say'} 'Power down'")
