"""The step guest-destroy."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, Guest


@step("guest-destroy", timeout_s=120)
def guest_destroy(ctx: StepContext) -> None:
    """The guest can be ended at once, and is gone then."""
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    state = guest.require_listed()
    host.toolstack.destroy(GUEST)
    guest.require_none("after destroy")
    ctx.log(f"{host.name}: domain {state.domid} is gone")
