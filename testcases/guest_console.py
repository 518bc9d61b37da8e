"""The step guest-console."""

from __future__ import annotations

import random

from lab.flights.steps import StepContext, step
from testcases._guests import ARM, KINDS, Guest


@step("guest-console", timeout_s=120)
def guest_console(ctx: StepContext) -> None:
    """The guest's console works both ways, and what runs there is a Xen guest of the kind asked for.

    The guest computes the product of two numbers drawn here, which no echo of what was typed contains.
    """
    guest, kind = Guest(ctx, ctx.host()), ctx.runvars.choice("guest_kind", KINDS)
    guest.require_listed()
    one, other = (random.randrange(10_000, 30_000) for _ in range(2))  # noqa: S311 - no secret
    lines = guest.shell(f"expr {one} '*' {other}; cat /sys/hypervisor/type /sys/hypervisor/guest_type; uname -r")
    # Linux on Arm tells no kinds apart: to it, every Xen guest is HVM.
    expected = (str(one * other), "xen", "HVM" if ctx.runvars.get("arch") in ARM else kind.upper())
    if lines[:3] != expected:
        raise guest.failure(f"the guest should say {expected!r}, but said {lines!r}"[:500])
    beat = guest.await_beats(beyond=0, more=0)
    guest.await_beats(beyond=beat.seq, more=1)
    ctx.log(f"{guest.host.name}: {kind} guest, Linux {' '.join(lines[3:])}, heartbeat {beat.seq} and going on")
