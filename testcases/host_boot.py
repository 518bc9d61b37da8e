"""The step host-boot."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext, step
from lab.hosts.power import cycle
from testcases._waiting import Stopwatch

READY_LIMIT_S: Final = 420.0
"""A real server spends minutes in its firmware; an emulated one is ready in 10 to 60 s."""


@step("host-boot", timeout_s=600)
def host_boot(ctx: StepContext) -> None:
    """The host comes up after a power cycle: dom0 says that it is ready, and its shell answers.

    The runvar `host_start` says how it is to come up; how it did is noted.
    """
    host = ctx.host()
    watch = Stopwatch()
    cycle(host.power, wait=ctx.wait, guard=ctx.guard)
    host.boot.wait_ready(timeout_s=READY_LIMIT_S, guard=ctx.guard)
    started = host.boot.started()
    ctx.runvars.set(f"{ctx.role}_boot_s", watch.seconds)
    ctx.runvars.set(f"{ctx.role}_boot_from", started.start)
    ctx.log(f"{host.name}: {started.note}")
    ctx.log(f"{host.name}: ready {watch.seconds} s after the power cycle began")
