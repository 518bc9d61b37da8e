"""Setting hosts' clocks, so that a guest that moves between them measures time and not their difference."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext
from lab.hosts.protocols import HostAccess

GOOD_ENOUGH_S: Final = 0.5
"""A smaller difference is taken out of what a guest measures; a larger one could hide its blackout altogether."""

# dom0's `date` sets whole seconds only: wait for the moment at which the right time is one.
# $1: by how many microseconds the clock is ahead.
_SET_BACK: Final = """
now=${EPOCHREALTIME/[.,]/}; right=$((now - $1)); left=$((1000000 - right % 1000000))
printf -v pause 0.%06d $((left % 1000000))
sleep "$pause" && date -s "@$(((right + left) / 1000000))" >/dev/null
"""


def set_clock(ctx: StepContext, host: HostAccess) -> tuple[float, float]:
    """Bring the host's clock near ours if it is not; (its wall clock minus ours, uncertainty) afterwards, in seconds.

    Setting dom0's clock sets Xen's, and with it that of guests which arrive later.
    """
    offset, uncertainty = host.shell.clock_offset()
    if abs(offset) > GOOD_ENOUGH_S + uncertainty:
        host.shell.run("bash", "-c", _SET_BACK, "bash", str(round(offset * 1_000_000)))
        ctx.log(f"{host.name}: its clock was {offset:+.3f} s off and was set")
        offset, uncertainty = host.shell.clock_offset()
    ctx.log(f"{host.name}: its clock is {offset:+.3f} s off, give or take {uncertainty:.3f} s")
    return offset, uncertainty
