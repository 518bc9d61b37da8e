"""Setting hosts' clocks, so that a guest that moves between them measures time and not their difference."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext
from lab.hosts.protocols import HostAccess

GOOD_ENOUGH_S: Final = 0.1

# dom0's `date` sets whole seconds only: wait for the moment at which the right time is one.
_SET_BACK: Final = """
now=$(($(date +%s%N) / 1000000)); right=$((now - $1)); left=$((1000 - right % 1000))
sleep "$(printf '%d.%03d' $((left / 1000)) $((left % 1000)))"
date -s "@$(((right + left) / 1000))" >/dev/null
"""


def set_clock(ctx: StepContext, host: HostAccess) -> tuple[float, float]:
    """Bring the host's clock near ours if it is not; (its wall clock minus ours, uncertainty) afterwards, in seconds.

    Setting dom0's clock sets Xen's, and with it that of guests which arrive later.
    """
    offset, uncertainty = host.shell.clock_offset()
    if abs(offset) > GOOD_ENOUGH_S:
        host.shell.script(_SET_BACK, str(round(offset * 1000)))
        ctx.log(f"{host.name}: its clock was {offset:+.3f} s off and was set")
        offset, uncertainty = host.shell.clock_offset()
    ctx.log(f"{host.name}: its clock is {offset:+.3f} s off, give or take {uncertainty:.3f} s")
    return offset, uncertainty
