"""Lease a host: check what a person asks for, book it, and begin it at once if that can be."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts, leases
from lab.db import session as db
from lab.errors import ConfigError, NotFoundError
from lab.hosts.calendar import Entry, entries, in_the_way, next_free, taken
from lab.hosts.leases import (
    SHORTEST,
    PersonLease,
    check_begin,
    check_length,
    check_line,
    check_person,
    stamp,
)
from lab.hosts.model import Health, Host, Requirement
from lab.services.begin_leases import Overtaken, begin_leases


def lease_host(
    session: Session,
    lab: Lab,
    *,
    holder: str,
    why: str,
    length: timedelta,
    host: str | None = None,
    need: str = "",
    begins: datetime | None = None,
    preemptable: bool = False,
    heartbeat: timedelta | None = None,
) -> PersonLease:
    """Book a host for a person: `host` by its name, or any that meets `need`; from `begins`, or as soon as possible.

    Returns the lease, active if it could begin at once. Raises `ConfigError` when any part is wrong, or when it would
    break a promise: then the message names that and the hint the next free time. Nothing is booked then.
    """
    now = lab.clock()
    holder, why = check_person(holder), check_line("reason", why)
    check_length(length, lab.lease_rules)
    if begins is not None:
        check_begin(begins, now, lab.lease_rules)
    if heartbeat is not None and not SHORTEST <= heartbeat <= length:
        raise ConfigError("a heartbeat is at least 1m and at most as long as the lease", hint="e.g. --heartbeat 30m")
    wanted = PersonLease(
        id=0,
        holder=holder,
        why=why,
        length=length,
        created=now,
        host=host,
        need=need,
        begins=begins,
        ends=None if begins is None else begins + length,
        preemptable=preemptable,
        heartbeat=heartbeat,
    )
    leases.lock_calendar(session)
    present = hosts.present_hosts(session)
    able = _able(session, wanted, present)
    calendar = entries(leases.going_leases(session), leases.blockages(session, now), present, now)
    if begins is None:
        _check_soon(wanted, able, calendar, now)
    else:
        wanted = _fixed(wanted, able, calendar, begins)
    number = leases.add_lease(session, wanted)
    when = f"from {stamp(begins)}" if begins else "as soon as possible"
    detail = f"{wanted.host or need} {when}: {why}"
    leases.add_change(session, number, "booked", actor=holder, now=now, host=wanted.host, detail=detail)
    # if somebody takes the host at this very moment, it stays booked, and the leader looks again
    with contextlib.suppress(Overtaken), session.begin_nested():
        begin_leases(session, lab)
    db.after_commit(session, lab.bell.ring)
    return leases.load_lease(session, number)


def _able(session: Session, wanted: PersonLease, present: Sequence[Host]) -> list[str]:
    """The hosts that could be meant, the best first."""
    if (wanted.host is None) == (not wanted.need):
        raise ConfigError("name a host, or say what it must offer with --need", hint="one of them, not both")
    if wanted.host is not None:
        host = hosts.load_host(session, wanted.host).host
        if host.health is Health.RETIRED:
            raise ConfigError(f"{host.name} is retired: {host.health_reason or 'no reason given'}")
        return [host.name]
    requirement = Requirement(wanted.need)
    matching = [host for host in present if requirement.matches(host)]
    if not matching:
        nearest = min(present, key=lambda host: (len(requirement.missing(host)), host.name), default=None)
        lacks = "; ".join(requirement.missing(nearest)) if nearest else ""
        told = f": the nearest is {nearest.name}, which lacks {lacks}" if nearest else ""
        raise NotFoundError(f"no host matches {wanted.need!r}{told}", hint="see `lab host list`")
    usable = [host for host in matching if host.usable()]
    if not usable:
        states = ", ".join(f"{host.name} is {host.health.value}" for host in matching)
        raise ConfigError(f"every host that matches is out of use: {states}", hint="lease one of them by its name")
    return [host.name for host in sorted(usable, key=lambda host: (host.setup_key is not None, host.name))]


def _fixed(wanted: PersonLease, able: Sequence[str], calendar: Sequence[Entry], begins: datetime) -> PersonLease:
    """The lease on the first host that can be had all the time; with the soonest time there is when none can."""
    ends = begins + wanted.length
    for name in able:
        if in_the_way(calendar, name, begins, ends, preemptable=wanted.preemptable) is None:
            return replace(wanted, host=name)
    frees = [
        (moment, name)
        for name in able
        if (moment := next_free(calendar, name, begins, wanted.length, preemptable=wanted.preemptable)) is not None
    ]
    free, name = min(frees, default=(None, able[0]))
    entry = in_the_way(calendar, name, begins, ends, preemptable=wanted.preemptable)
    assert entry is not None
    raise taken(entry, free)


def _check_soon(wanted: PersonLease, able: Sequence[str], calendar: Sequence[Entry], now: datetime) -> None:
    """It may wait for whoever has the host, but not for a blockage, of which people should hear."""
    blocked = [entry for entry in calendar if entry.kind == "blockage"]
    refusals = []
    for name in able:
        entry = in_the_way(blocked, name, now, now + wanted.length, preemptable=wanted.preemptable)
        free = next_free(calendar, name, now, wanted.length, preemptable=wanted.preemptable)
        if entry is None and free is not None:
            return
        refusals.append((free is None, free or now, entry, name))
    never, free, entry, name = min(refusals, key=lambda refusal: (*refusal[:2], refusal[3]))
    if entry is None:
        entry = in_the_way(calendar, name, now, None, preemptable=wanted.preemptable)
        assert entry is not None
    raise taken(entry, None if never else free)
