"""The step guest-localmigrate."""

from __future__ import annotations

import re

from lab.errors import LabBug
from lab.flights.steps import SkipStep, StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._guests import GUEST, Guest, check_survived
from testcases._waiting import Stopwatch
from testcases._xl_output import parse_xl_info


@step("guest-localmigrate", timeout_s=1800)
def guest_localmigrate(ctx: StepContext) -> None:
    """The guest, migrated live to its own host (`times` in a row), goes on where it was, each time as a new domain."""
    times = ctx.args.get("times", "1")
    if not re.fullmatch(r"[1-9][0-9]?", times):
        raise LabBug(f"guest-localmigrate: {times!r} times is not a number from 1 to 99")
    host = ctx.host()
    if reason := no_live_migration(host, ctx.runvars.get("guest_kind")):
        raise SkipStep(reason)
    guest = Guest(ctx, host)
    domid = guest.require_listed().domid
    life = guest.life()
    for turn in range(1, int(times) + 1):
        watch = Stopwatch()
        host.toolstack.migrate_local(GUEST)
        took = watch.seconds
        state = guest.require_listed()
        if state.domid == domid:
            raise guest.failure(f"a migrated guest is a new domain, but it still is {domid}")
        before, life = life, check_survived(life, [guest], f"local migration {turn}")
        ctx.runvars.set("localmigrate_s", took)
        ctx.runvars.set("guest_domid", state.domid)
        ctx.log(f"{host.name}: migration {turn} took {took} s, domain {domid} became {state.domid}")
        ctx.log(f"heartbeats {before.beat.seq} to {life.beat.seq} without a hole, memory whole")
        domid = state.domid


def no_live_migration(host: HostAccess, kind: str) -> str | None:
    """Why this Xen cannot migrate guests of this kind live; None when it can.

    The pages a PV guest writes meanwhile are found with shadow page tables, which a build of Xen may lack (Debian's
    4.20 does). A guest with hardware virtualisation does not need them.
    """
    capabilities = parse_xl_info(host.shell.run("xl", "info").stdout).get("virt_caps", "").split()
    if kind == "pv" and "shadow" not in capabilities:
        return f"{host.name}: Xen has no shadow paging, which live PV migration needs ({' '.join(capabilities)})"
    return None
