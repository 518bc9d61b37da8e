"""Leases, bookings and blockages as an iCalendar file (RFC 5545), for people's own calendars.

The library escapes and folds what people wrote: a reason can neither end a line of the file nor begin another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from icalendar import Calendar, Event

from lab.hosts.calendar import Blockage
from lab.hosts.leases import LeaseState, PersonLease

FAR = timedelta(days=90)
"""How far ahead of now a blockage without an end is drawn."""


def calendar_file(
    leases: Iterable[PersonLease],
    blockages: Iterable[Blockage],
    *,
    name: str,
    lab: str,
    now: datetime,
) -> bytes:
    """The file. `name` is shown as the calendar's; `lab` tells this installation from others, for the events' names.

    A lease that is to begin as soon as possible is there, as tentative, once it is known when.
    """
    calendar = Calendar()
    calendar.add("prodid", "-//Flightline//leases//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("x-wr-calname", name)
    place = hashlib.sha256(lab.encode()).hexdigest()[:16]
    for lease in leases:
        if (event := _lease(lease, now)) is not None:
            event.add("uid", f"lease-{lease.id}@{place}.flightline")
            calendar.add_component(event)
    for blockage in blockages:
        event = _event(
            f"{blockage.host or blockage.need}: blocked",
            f"{blockage.why}\nby {blockage.actor}" + ("" if blockage.ends else "\nuntil further notice"),
            blockage.begins,
            blockage.ends or max(now, blockage.begins) + FAR,
            now,
        )
        event.add("location", blockage.host or blockage.need)
        event.add("status", "CONFIRMED")
        event.add("categories", ["blockage"])
        event.add("uid", f"blockage-{blockage.id}@{place}.flightline")
        calendar.add_component(event)
    return bytes(calendar.to_ical())


def _lease(lease: PersonLease, now: datetime) -> Event | None:
    start = lease.started or lease.begins or lease.expected
    if start is None:
        return None
    end = lease.closed or lease.ends or start + lease.length
    where = lease.host or lease.need
    notes = [lease.why]
    if lease.preemptable:
        notes.append("preemptable")
    if lease.notice:
        notes.append(f"will be taken for {lease.notice_for}")
    if lease.waits:
        notes.append(lease.waits)
    event = _event(f"{where}: {lease.holder}", "\n".join(notes), start, max(end, start), now)
    event.add("location", where)
    firm = lease.state is not LeaseState.BOOKED or lease.begins is not None
    event.add("status", "CONFIRMED" if firm else "TENTATIVE")
    event.add("categories", ["lease" if lease.state is LeaseState.ACTIVE else "booking"])
    event.add("created", lease.created)
    return event


def _event(summary: str, description: str, start: datetime, end: datetime, now: datetime) -> Event:
    event = Event()
    event.add("summary", summary)
    event.add("description", description)
    event.add("dtstamp", now.replace(microsecond=0))
    event.add("dtstart", start.replace(microsecond=0))
    event.add("dtend", end.replace(microsecond=0))
    return event
