"""The step guest-migrate."""

from __future__ import annotations

import re
from typing import Final

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._clocks import set_clock
from testcases._guests import (
    GUEST,
    ask_agent,
    check_survived,
    guest_failure,
    read_life,
    require_gone,
    require_guest,
    require_only_guest,
)
from testcases._waiting import Stopwatch

TICK_MS: Final = 50
"""The guest measures how long it stood still as the largest step between two of its ticks."""


@step("guest-migrate", timeout_s=900)
def guest_migrate(ctx: StepContext) -> None:
    """The guest moves live from role `source` to role `target`, perhaps to another Xen, and goes on where it was.

    Its downtime is what the guest itself sees: the largest step of its wall clock. That clock is the host's, and the
    hosts' clocks differ a little; both are measured before, and the difference is taken out.
    """
    source, target = ctx.host(_role(ctx, "source")), ctx.host(_role(ctx, "target"))
    before = read_life(ctx, source)
    require_gone(target, "nothing yet")
    (source_ahead, doubt), (target_ahead, more_doubt) = set_clock(ctx, source), set_clock(ctx, target)
    ask_agent(source, "reset")

    watch = Stopwatch()
    source.toolstack.migrate(GUEST, target)
    took = watch.seconds

    state = require_guest(target)
    gap = largest_gap(target)
    require_gone(source, "the migration")
    require_only_guest(target)
    check_survived(ctx, before, [source, target], f"migration from {source.name} to {target.name}")

    downtime = downtime_ms(gap, source_ahead_s=source_ahead, target_ahead_s=target_ahead)
    uncertainty = round((doubt + more_doubt) * 1000) + TICK_MS
    ctx.runvars.set("migrate_s", took)
    ctx.runvars.set("downtime_ms", downtime)
    ctx.runvars.set("downtime_uncertainty_ms", uncertainty)
    ctx.runvars.set("guest_domid", state.domid)
    versions = " to ".join(ctx.runvars.get(f"{_role(ctx, end)}_xen_version", "?") for end in ("source", "target"))
    ctx.log(
        f"Xen {versions}: migrated in {took} s; the guest saw a gap of {gap} ms, "
        f"which is {downtime} ms of downtime, give or take {uncertainty} ms"
    )


def _role(ctx: StepContext, end: str) -> str:
    role = ctx.args.get(end, "")
    if role not in ctx.roles:
        raise LabBug(f"guest-migrate: {end}={role!r} is not a role of the job ({', '.join(ctx.roles)})")
    return role


def largest_gap(host: HostAccess) -> int:
    """The largest step of the guest's wall clock since its agent was asked to forget, in milliseconds."""
    reply = ask_agent(host, "gap")
    found = re.search(r"\bmaxgap_ms=([0-9]+)\b", reply.text)
    if not found:
        raise guest_failure(host, f"{host.name}: the guest should tell its largest gap, but said {reply.text!r}")
    return int(found[1])


def downtime_ms(gap_ms: int, *, source_ahead_s: float, target_ahead_s: float) -> int:
    """How long the guest stood still, given the step it saw when it left one clock for another.

    >>> downtime_ms(1500, source_ahead_s=0.1, target_ahead_s=0.4)
    1200
    """
    return max(0, round(gap_ms - (target_ahead_s - source_ahead_s) * 1000))
