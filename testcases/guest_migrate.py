"""The step guest-migrate."""

from __future__ import annotations

from typing import Final

from lab.errors import LabBug, StepFailure
from lab.flights.steps import StepContext, step
from testcases._clocks import clock_difference
from testcases._guests import GUEST, Guest, Life, check_survived
from testcases._measurements import add_measurement, largest_gap
from testcases._waiting import Stopwatch

TICK_MS: Final = 50
"""The guest measures how long it stood still as the largest step between two of its ticks."""


@step("guest-migrate", timeout_s=900)
def guest_migrate(ctx: StepContext) -> None:
    """The guest moves live from role `source` to role `target`, perhaps to another Xen, and goes on where it was.

    Its downtime is what the guest itself sees: the largest step of its wall clock. That clock is the host's, and the
    hosts' clocks differ a little; both are measured before, and the difference is taken out. When the toolstack
    refuses, the failure says whether the guest still lives where it was.
    """
    source, target = (Guest(ctx, ctx.host(role_of(ctx, end))) for end in ("source", "target"))
    source.require_listed()
    target.require_none("at first")
    before = source.life()
    ahead, doubt = clock_difference(ctx, source.host, target.host)
    source.ask("reset")

    watch = Stopwatch()
    try:
        sent = source.host.toolstack.migrate(GUEST, target.host)
    except StepFailure as failure:
        raise with_fate(failure, source, before) from failure
    took = watch.seconds

    gap = largest_gap(target)
    state = target.require_listed()
    source.require_none("after the migration")
    after = check_survived(before, [source, target], f"migration from {source.host.name} to {target.host.name}")

    downtime = downtime_ms(gap, target_ahead_s=ahead)
    uncertainty = round(doubt * 1000) + TICK_MS
    add_measurement(ctx.runvars, "migrate_s", took)
    add_measurement(ctx.runvars, "downtime_ms", downtime)
    add_measurement(ctx.runvars, "downtime_uncertainty_ms", uncertainty)
    add_measurement(ctx.runvars, "migrate_bytes", "unknown" if sent is None else sent)
    ctx.runvars.set("guest_domid", state.domid)
    versions = " to ".join(ctx.runvars.get(f"{role_of(ctx, end)}_xen_version", "?") for end in ("source", "target"))
    ctx.log(
        f"Xen {versions}: migrated in {took} s with {size_of(sent)} sent; the guest saw a gap of {gap} ms, "
        f"which is {downtime} ms of downtime, give or take {uncertainty} ms"
    )
    ctx.log(f"heartbeats {before.beat.seq} to {after.beat.seq} without a hole, memory whole")


def role_of(ctx: StepContext, end: str) -> str:
    """The role that the recipe line gives as `source` or `target`."""
    role = ctx.args.get(end, "")
    if role not in ctx.roles:
        raise LabBug(f"{end}={role!r} is not a role of the job ({', '.join(ctx.roles)})")
    return role


def with_fate(failure: StepFailure, source: Guest, before: Life) -> StepFailure:
    """The failed migration, and what became of the guest: it has to live on where it was."""
    try:
        source.require_listed()  # a guest that has gone would only be waited for
        after = check_survived(before, [source], "a failed migration")
        fate = f"the guest lives on where it was (heartbeat {after.beat.seq})"
    except StepFailure as lost:
        fate = f"and the guest did not survive it: {lost.message}"
    return StepFailure(f"{failure.message}; {fate}", evidence=failure.evidence)


def size_of(sent: int | None) -> str:
    """A number of bytes for people.

    >>> size_of(140_509_184)
    '134.0 MiB'
    """
    return "an unknown amount" if sent is None else f"{sent / (1 << 20):.1f} MiB"


def downtime_ms(gap_ms: int, *, target_ahead_s: float) -> int:
    """How long the guest stood still, given the step it saw when it left one clock for another.

    >>> downtime_ms(1500, target_ahead_s=0.3)
    1200
    """
    return max(0, round(gap_ms - target_ahead_s * 1000))
