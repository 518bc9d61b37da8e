"""The step guest-destroy."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, require_gone, require_guest


@step("guest-destroy", timeout_s=120)
def guest_destroy(ctx: StepContext) -> None:
    """The guest can be ended at once, and is gone then."""
    host = ctx.host()
    state = require_guest(host)
    host.toolstack.destroy(GUEST)
    require_gone(host, "destroy")
    ctx.log(f"{host.name}: domain {state.domid} is gone")
