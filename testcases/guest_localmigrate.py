"""The step guest-localmigrate."""

from __future__ import annotations

import re

from lab.errors import LabBug
from lab.flights.steps import SkipStep, StepContext, step
from testcases._guests import GUEST, Guest, check_survived
from testcases._measurements import add_measurement, largest_gap
from testcases._readings import read_all
from testcases._support import SUPPORT
from testcases._waiting import Stopwatch


@step("guest-localmigrate", timeout_s=1800)
def guest_localmigrate(ctx: StepContext) -> None:
    """The guest, migrated live to its own host (`times` in a row), goes on where it was, each time as a new domain."""
    times = ctx.args.get("times", "1")
    if not re.fullmatch(r"[1-9][0-9]?", times):
        raise LabBug(f"guest-localmigrate: {times!r} times is not a number from 1 to 99")
    host = ctx.host()
    live = SUPPORT["live-migration"]
    if reason := live.missing(read_all(host.shell, live.commands), ctx.runvars):
        raise SkipStep(f"{host.name}: {reason}")
    guest = Guest(ctx, host)
    domid = guest.require_listed().domid
    life = guest.life()
    for turn in range(1, int(times) + 1):
        guest.ask("reset")
        watch = Stopwatch()
        host.toolstack.migrate_local(GUEST)
        took = watch.seconds
        gap = largest_gap(guest)
        state = guest.require_listed()
        if state.domid == domid:
            raise guest.failure(f"a migrated guest is a new domain, but it still is {domid}")
        before, life = life, check_survived(life, [guest], f"local migration {turn}")
        add_measurement(ctx.runvars, "localmigrate_s", took)
        add_measurement(ctx.runvars, "localmigrate_downtime_ms", gap)
        ctx.runvars.set("guest_domid", state.domid)
        ctx.log(f"{host.name}: migration {turn} took {took} s with a gap of {gap} ms, {domid} became {state.domid}")
        ctx.log(f"heartbeats {before.beat.seq} to {life.beat.seq} without a hole, memory whole")
        domid = state.domid
