"""The step guest-localmigrate."""

from __future__ import annotations

import re

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, check_survived, guest_failure, read_life, require_guest, require_only_guest
from testcases._waiting import Stopwatch


@step("guest-localmigrate", timeout_s=1800)
def guest_localmigrate(ctx: StepContext) -> None:
    """The guest, migrated live to its own host (`times` in a row), goes on where it was, each time as a new domain."""
    host = ctx.host()
    times = ctx.args.get("times", "1")
    if not re.fullmatch(r"[1-9][0-9]?", times):
        raise LabBug(f"guest-localmigrate: {times!r} times is not a number from 1 to 99")
    life, domid = read_life(ctx, host), require_guest(host).domid
    for turn in range(1, int(times) + 1):
        watch = Stopwatch()
        host.toolstack.migrate_local(GUEST)
        took = watch.seconds
        state = require_guest(host)
        if state.domid == domid:
            raise guest_failure(host, f"{host.name}: a migrated guest is a new domain, but it still is {domid}")
        require_only_guest(host)
        life = check_survived(ctx, life, [host], f"local migration {turn}")
        ctx.runvars.set("localmigrate_s", took)
        ctx.runvars.set("guest_domid", state.domid)
        ctx.log(f"{host.name}: migration {turn} took {took} s, domain {domid} became {state.domid}")
        domid = state.domid
