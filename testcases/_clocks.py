"""The difference between two hosts' clocks: a guest that moves between them would take it for time that passed."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext
from lab.hosts.protocols import HostAccess

GOOD_ENOUGH_S: Final = 0.3
"""So little is taken out of what the guest measures; more could hide its blackout altogether."""

# dom0's `date` sets whole seconds only: wait for the moment at which the right time is one.
# $1: by how many microseconds the clock is ahead.
_SET_BACK: Final = """
now=${EPOCHREALTIME/[.,]/}; right=$((now - $1)); left=$((1000000 - right % 1000000))
printf -v pause 0.%06d $((left % 1000000))
sleep "$pause" && date -s "@$(((right + left) / 1000000))" >/dev/null
"""


def clock_difference(ctx: StepContext, source: HostAccess, target: HostAccess) -> tuple[float, float]:
    """(target's wall clock minus source's, uncertainty), in seconds; both are set first if they differ much.

    Setting dom0's clock sets Xen's, and with it that of guests which arrive later.
    """
    difference, uncertainty = _measure(ctx, source, target)
    if abs(difference) > GOOD_ENOUGH_S + uncertainty:
        for host in (source, target):
            ahead, _ = host.shell.clock_offset()
            host.shell.run("bash", "-c", _SET_BACK, "bash", str(round(ahead * 1_000_000)))
            ctx.log(f"{host.name}: its clock was set")
        difference, uncertainty = _measure(ctx, source, target)
    return difference, uncertainty


def _measure(ctx: StepContext, source: HostAccess, target: HostAccess) -> tuple[float, float]:
    (source_ahead, doubt), (target_ahead, more_doubt) = source.shell.clock_offset(), target.shell.clock_offset()
    difference, uncertainty = target_ahead - source_ahead, doubt + more_doubt
    ctx.log(
        f"the clock of {target.name} is {difference:+.3f} s ahead of that of {source.name}, "
        f"give or take {uncertainty:.3f} s"
    )
    return difference, uncertainty
