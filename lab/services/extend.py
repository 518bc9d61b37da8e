"""Extend a lease: move its end, unless somebody else is promised the host then."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts, leases
from lab.db import session as db
from lab.errors import ConfigError
from lab.hosts.calendar import check_free, entries
from lab.hosts.leases import PersonLease, check_extension, how_ended, stamp
from lab.services.release import check_may


def extend_lease(
    session: Session,
    lab: Lab,
    lease: PersonLease,
    *,
    actor: str,
    by: timedelta | None = None,
    ends: datetime | None = None,
    force: bool = False,
) -> datetime:
    """Let a lease end `by` so much later, or at `ends`; returns its new end.

    Raises `ConfigError` when it is over or another's, when that is too long, or when it would break a promise (then
    the message names that).
    """
    now = lab.clock()
    check_may(lease, actor, force=force)
    if how_ended(lease, now) is not None:
        raise ConfigError(f"the time of {lease.name} is over", hint="take a new one with `lab host lease`")
    if (by is None) == (ends is None):
        raise ConfigError("say by how much, or until when", hint="--for 1h or --until TIME")
    if by is not None and by <= timedelta():
        raise ConfigError("a lease is extended by more than nothing", hint="to end it earlier, release it")
    later = ends if ends is not None else (lease.ends or now) + (by or timedelta())
    check_extension(lease, later, now, lab.lease_rules)
    leases.lock_calendar(session)
    present = hosts.present_hosts(session)
    calendar = entries(leases.going_leases(session), leases.blockages(session, now), present, now)
    assert lease.host is not None
    assert lease.ends is not None
    check_free(calendar, lease.host, lease.ends, later, preemptable=lease.preemptable, but=lease.id)
    if not leases.set_end(session, lease.id, ends=later):
        raise ConfigError(f"{lease.name} has ended at this moment", hint="take a new one with `lab host lease`")
    leases.hear(session, lease.id, now=now)
    detail = f"until {stamp(later)}"
    leases.add_change(session, lease.id, "extended", actor=actor, now=now, host=lease.host, detail=detail)
    db.after_commit(session, lab.bell.ring)
    return later
