"""The step guest-stop."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, Guest
from testcases._waiting import Stopwatch


@step("guest-stop", timeout_s=300)
def guest_stop(ctx: StepContext) -> None:
    """The guest lives, is asked to shut down, and does so by itself: its kernel says so, and its domain is gone."""
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    guest.life()
    watch = Stopwatch()
    host.toolstack.shutdown(GUEST)
    took = watch.seconds
    guest.require_none("after shutdown")
    said = "Power down" in guest.console.text()[-2000:]
    ctx.runvars.set("guest_stop_s", took)
    ctx.log(f"{host.name}: gone after {took} s; its kernel {'said' if said else 'did not visibly say'} 'Power down'")
