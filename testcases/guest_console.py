"""The step guest-console."""

from __future__ import annotations

import random

from lab.flights.steps import StepContext, step
from testcases._guests import KINDS, ask_agent, await_beats, guest_failure, guest_shell, read_life, require_guest


@step("guest-console", timeout_s=120)
def guest_console(ctx: StepContext) -> None:
    """The guest's console works both ways, and what runs there is a Xen guest of the kind asked for.

    The guest computes the product of two numbers drawn here, which no echo of what was typed contains.
    """
    host = ctx.host()
    require_guest(host)
    ask_agent(host, "ping")
    one, other = (random.randrange(10_000, 30_000) for _ in range(2))  # noqa: S311 - no secret
    lines = guest_shell(
        host, f"expr {one} '*' {other}; cat /sys/hypervisor/type /sys/hypervisor/guest_type; uname -r"
    )
    kind = ctx.runvars.choice("guest_kind", KINDS)
    expected = (str(one * other), "xen", kind.upper())
    if lines[:3] != expected:
        raise guest_failure(host, f"{host.name}: the guest should say {expected!r}, but said {lines!r}")
    life = read_life(ctx, host)
    await_beats(ctx, host, beyond=life.beat.seq, more=1)
    ctx.log(f"{host.name}: {kind} guest with Linux {' '.join(lines[3:])}, heartbeat {life.beat.seq} and going on")
