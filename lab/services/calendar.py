"""Read the calendar: who had, has and will have which host, for pages, terminals and calendar files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from lab import ics
from lab.context import Lab
from lab.db import hosts, leases
from lab.hosts.leases import LeaseState, PersonLease


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A stretch of time of one host. `kind`: lease | booking | blockage | past | job; `end` None: open.

    `number` is that of the lease or the blockage; `firm` is False for a booking whose time is only expected.
    """

    host: str
    start: datetime
    end: datetime | None
    kind: str
    who: str
    why: str = ""
    number: int | None = None
    preemptable: bool = False
    firm: bool = True


def marks(session: Session, lab: Lab, start: datetime, end: datetime, *, host: str | None = None) -> list[Mark]:
    """What meets [start, end), by host and time: holds of the past and of now, bookings, blockages."""
    now = lab.clock()
    going = leases.going_leases(session)
    by_number = {lease.id: lease for lease in going}
    found = [_booked(lease, now) for lease in going if lease.state is LeaseState.BOOKED]
    for hold in leases.holds_between(session, start, end):
        lease = by_number.get(hold.lease) if hold.lease is not None else None
        active = lease is not None and hold.until is None
        found.append(
            Mark(
                host=hold.host,
                start=hold.since,
                end=lease.until if lease is not None and active else hold.until,
                kind="lease" if active else "past" if hold.lease is not None else "job",
                who=hold.holder,
                why=lease.why if lease is not None else "",
                number=hold.lease,
                preemptable=lease is not None and lease.preemptable,
            )
        )
    present = hosts.present_hosts(session)
    for blockage in leases.blockages(session):
        found += [
            Mark(
                host=one.name,
                start=blockage.begins,
                end=blockage.ends,
                kind="blockage",
                who=blockage.actor,
                why=blockage.why,
                number=blockage.id,
            )
            for one in present
            if blockage.covers(one)
        ]
    meeting = [
        mark
        for mark in found
        if mark is not None
        and mark.start < end
        and (mark.end is None or mark.end > start)
        and host in (None, mark.host)
    ]
    return sorted(meeting, key=lambda mark: (mark.host, mark.start, mark.kind, mark.number or 0))


def _booked(lease: PersonLease, now: datetime) -> Mark | None:
    start = lease.begins or lease.expected
    if lease.host is None or start is None:
        return None
    return Mark(
        host=lease.host,
        start=max(start, now) if lease.begins is None else start,
        end=lease.ends or max(start, now) + lease.length,
        kind="booking",
        who=lease.holder,
        why=lease.why,
        number=lease.id,
        preemptable=lease.preemptable,
        firm=lease.begins is not None,
    )


def calendar_file(session: Session, lab: Lab, *, host: str | None = None) -> bytes:
    """The iCalendar file of all hosts, or of one: what goes on, is booked or blocked, and what ended last."""
    now = lab.clock()
    if host is not None:
        known = hosts.load_host(session, host).host
        going = [lease for lease in leases.going_leases(session) if lease.host == host]
        blocked = [blockage for blockage in leases.blockages(session, now) if blockage.covers(known)]
    else:
        going, blocked = leases.going_leases(session), leases.blockages(session, now)
    ended = [lease for lease in leases.ended_leases(session, host=host) if lease.started is not None]
    name = f"Flightline: {host or 'leases'}"
    return ics.calendar_file([*ended, *going], blocked, name=name, lab=str(lab.settings.home.resolve()), now=now)
