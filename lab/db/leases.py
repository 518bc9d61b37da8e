"""Queries on leases of people and on blockages. Every change of a lease is written down with who and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, select, text, update
from sqlalchemy.orm import Session

from lab.db.flights import add_event
from lab.db.hosts import take_host
from lab.db.session import matched
from lab.db.tables import BlockageRow, BookingChangeRow, BookingRow, HostRow, LeaseRow
from lab.errors import NotFoundError
from lab.hosts.calendar import Blockage
from lab.hosts.leases import LeaseState, Outcome, PersonLease
from lab.hosts.model import HostState

_CALENDAR_KEY = 0x43414C4E44
"""Any number, but always this one ("CALND")."""

LARGEST_ID = (1 << 31) - 1
"""What a number column of PostgreSQL holds."""


@dataclass(frozen=True, kw_only=True)
class LeaseChange:
    """Something that was done to a lease."""

    at: datetime
    what: str
    actor: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class HostHold:
    """A stretch of time in which somebody held a host: a job (`FLIGHT.JOB`) or a person (with the number `lease`)."""

    host: str
    holder: str
    since: datetime
    until: datetime | None
    lease: int | None


def _lease(row: BookingRow, fence: int | None) -> PersonLease:
    return PersonLease(
        id=row.id,
        holder=row.holder,
        host=row.host,
        need=row.need,
        begins=row.begins,
        ends=row.ends,
        length=timedelta(seconds=row.seconds),
        why=row.why,
        preemptable=row.preemptable,
        state=LeaseState(row.state),
        outcome=Outcome(row.outcome) if row.outcome else None,
        fence=fence,
        created=row.created,
        started=row.started,
        closed=row.closed,
        notice=row.notice,
        notice_for=row.notice_for,
        waits=row.waits,
        expected=row.expected,
        heartbeat=None if row.heartbeat_s is None else timedelta(seconds=row.heartbeat_s),
        heard=row.heard,
    )


def _read(session: Session, query: Select[BookingRow]) -> list[PersonLease]:
    rows = session.scalars(query).all()
    held = select(LeaseRow.booking, LeaseRow.fence).where(LeaseRow.released.is_(None), LeaseRow.booking.is_not(None))
    fences = {row.booking: row.fence for row in session.execute(held)} if rows else {}
    return [_lease(row, fences.get(row.id)) for row in rows]


def lock_calendar(session: Session) -> None:
    """Until the transaction ends nobody else makes a promise: of two that meet, the second must see the first."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CALENDAR_KEY})


def going_leases(session: Session) -> list[PersonLease]:
    """Leases that are booked or active, in the order in which they were asked for."""
    query = select(BookingRow).where(BookingRow.state != LeaseState.ENDED.value).order_by(BookingRow.id)
    return _read(session, query)


def ended_leases(session: Session, *, host: str | None = None, limit: int = 50) -> list[PersonLease]:
    """The leases that ended last, newest first."""
    query = select(BookingRow).where(BookingRow.state == LeaseState.ENDED.value)
    if host is not None:
        query = query.where(BookingRow.host == host)
    return _read(session, query.order_by(BookingRow.closed.desc(), BookingRow.id.desc()).limit(limit))


def load_lease(session: Session, number: int) -> PersonLease:
    """One lease; `NotFoundError` when there is none."""
    if 0 < number <= LARGEST_ID:
        for lease in _read(session, select(BookingRow).where(BookingRow.id == number)):
            return lease
    raise NotFoundError(f"there is no lease {number}", hint="see `lab lease list`")


def active_lease(session: Session, host: str) -> PersonLease | None:
    """The lease of a person that holds `host` now."""
    query = select(BookingRow).where(BookingRow.host == host, BookingRow.state == LeaseState.ACTIVE.value)
    return next(iter(_read(session, query)), None)


def add_lease(session: Session, lease: PersonLease) -> int:
    """Insert a booked lease (its `id` does not count); returns its number."""
    row = BookingRow(
        holder=lease.holder,
        host=lease.host,
        need=lease.need,
        begins=lease.begins,
        ends=lease.ends,
        seconds=int(lease.length.total_seconds()),
        why=lease.why,
        preemptable=lease.preemptable,
        state=LeaseState.BOOKED.value,
        created=lease.created,
        notice_for="",
        waits="",
        heartbeat_s=None if lease.heartbeat is None else int(lease.heartbeat.total_seconds()),
    )
    session.add(row)
    session.flush()
    return row.id


def begin_lease(session: Session, lease: PersonLease, host: str, *, now: datetime, ends: datetime) -> int | None:
    """A booked lease gets its host, fenced for it already; returns the token, or None when it is booked no more."""
    if not matched(
        session,
        update(BookingRow)
        .where(BookingRow.id == lease.id, BookingRow.state == LeaseState.BOOKED.value)
        .values(state=LeaseState.ACTIVE.value, host=host, started=now, heard=now, ends=ends, waits="", expected=None),
    ):
        return None
    session.execute(update(HostRow).where(HostRow.name == host).values(setup_key=None, setup_flight=None))
    return take_host(session, host, booking=lease.id, holder=lease.holder, now=now)


def set_wait(session: Session, number: int, *, why: str, expected: datetime | None, host: str | None = None) -> bool:
    """Say why a booked lease has not begun; True when that is news."""
    news = matched(
        session,
        update(BookingRow)
        .where(BookingRow.id == number, BookingRow.state == LeaseState.BOOKED.value)
        .where((BookingRow.waits != why) | (BookingRow.expected.is_distinct_from(expected)))
        .values(waits=why, expected=expected),
    )
    if host is not None:  # where one with a requirement is thought to begin
        placed = update(BookingRow).where(BookingRow.id == number, BookingRow.state == LeaseState.BOOKED.value)
        session.execute(placed.where(BookingRow.need != "", BookingRow.begins.is_(None)).values(host=host))
    return news


def set_notice(session: Session, number: int, *, at: datetime | None, for_whom: str) -> bool:
    """Tell the holder of an active lease when it will be taken, and for whom; None takes that back."""
    return matched(
        session,
        update(BookingRow)
        .where(BookingRow.id == number, BookingRow.state == LeaseState.ACTIVE.value)
        .where(BookingRow.notice.is_distinct_from(at))
        .values(notice=at, notice_for=for_whom),
    )


def set_end(session: Session, number: int, *, ends: datetime) -> bool:
    """Move the end of a lease that has not ended; False when it has."""
    return matched(
        session,
        update(BookingRow).where(BookingRow.id == number, BookingRow.state != LeaseState.ENDED.value).values(ends=ends),
    )


def hear(session: Session, number: int, *, now: datetime) -> None:
    """Its holder has given a sign of life."""
    session.execute(update(BookingRow).where(BookingRow.id == number).values(heard=now))


def end_lease(session: Session, lease: PersonLease, outcome: Outcome, *, now: datetime) -> bool:
    """End a lease; its host, if it has one, goes to cleaning. False when it had ended already."""
    if not matched(
        session,
        update(BookingRow)
        .where(BookingRow.id == lease.id, BookingRow.state == lease.state.value)
        .values(state=LeaseState.ENDED.value, outcome=outcome.value, closed=now, waits="", expected=None),
    ):
        return False
    if lease.state is LeaseState.ACTIVE:
        _release(session, lease.id, now)
        session.execute(
            update(HostRow)
            .where(HostRow.name == lease.host, HostRow.state == HostState.LEASED.value)
            .values(state=HostState.CLEANING.value, setup_key=None, setup_flight=None)
        )
    return True


def change_holder(session: Session, lease: PersonLease, person: str, *, now: datetime) -> int | None:
    """Give an active lease to another person under a new token: the old one is worth nothing. None: it was too late."""
    if (
        not matched(
            session,
            update(BookingRow)
            .where(
                BookingRow.id == lease.id,
                BookingRow.state == LeaseState.ACTIVE.value,
                BookingRow.holder == lease.holder,
            )
            .values(holder=person, heard=now),
        )
        or lease.host is None
    ):
        return None
    _release(session, lease.id, now)
    session.execute(update(HostRow).where(HostRow.name == lease.host).values(fence=HostRow.fence + 1))
    return take_host(session, lease.host, booking=lease.id, holder=person, now=now)


def _release(session: Session, number: int, now: datetime) -> None:
    session.execute(
        update(LeaseRow).where(LeaseRow.booking == number, LeaseRow.released.is_(None)).values(released=now)
    )


def add_change(
    session: Session, number: int, what: str, *, actor: str, now: datetime, host: str | None = None, detail: str = ""
) -> None:
    """Write down what was done to a lease, and tell whoever watches."""
    session.add(BookingChangeRow(booking=number, at=now, what=what, actor=actor, detail=detail))
    add_event(session, kind="lease", now=now, data={"lease": number, "what": what, "host": host, "by": actor})


def lease_history(session: Session, number: int) -> list[LeaseChange]:
    """What was done to a lease, oldest first."""
    rows = session.scalars(
        select(BookingChangeRow).where(BookingChangeRow.booking == number).order_by(BookingChangeRow.id)
    )
    return [LeaseChange(at=row.at, what=row.what, actor=row.actor, detail=row.detail) for row in rows]


def holds_between(session: Session, start: datetime, end: datetime, *, limit: int = 5000) -> list[HostHold]:
    """Who held which host between two moments, oldest first; `until` None: still."""
    query = (
        select(LeaseRow)
        .where(LeaseRow.since < end, LeaseRow.released.is_(None) | (LeaseRow.released > start))
        .order_by(LeaseRow.since.desc(), LeaseRow.id.desc())
        .limit(limit)
    )
    rows = reversed(session.scalars(query).all())
    return [
        HostHold(host=row.host, holder=row.holder, since=row.since, until=row.released, lease=row.booking)
        for row in rows
    ]


def holders(session: Session, hosts: Iterable[str] | None = None) -> dict[str, HostHold]:
    """Who holds what now."""
    query = select(LeaseRow).where(LeaseRow.released.is_(None))
    if hosts is not None:
        query = query.where(LeaseRow.host.in_(list(hosts)))
    return {
        row.host: HostHold(host=row.host, holder=row.holder, since=row.since, until=None, lease=row.booking)
        for row in session.scalars(query)
    }


def _blockage(row: BlockageRow) -> Blockage:
    return Blockage(
        id=row.id, why=row.why, actor=row.actor, begins=row.begins, ends=row.ends, host=row.host, need=row.need
    )


def blockages(session: Session, now: datetime | None = None) -> list[Blockage]:
    """The blockages that were not removed, by their beginning; with `now` those that are not over."""
    query = select(BlockageRow).where(BlockageRow.removed.is_(None))
    if now is not None:
        query = query.where(BlockageRow.ends.is_(None) | (BlockageRow.ends > now))
    return [_blockage(row) for row in session.scalars(query.order_by(BlockageRow.begins, BlockageRow.id))]


def load_blockage(session: Session, number: int) -> Blockage:
    """A blockage that was not removed; `NotFoundError` when there is none."""
    row = session.get(BlockageRow, number) if 0 < number <= LARGEST_ID else None
    if row is not None and row.removed is None:
        return _blockage(row)
    raise NotFoundError(f"there is no blockage {number}", hint="see `lab blockage list`")


def add_blockage(session: Session, blockage: Blockage, *, now: datetime) -> int:
    """Insert a blockage (its `id` does not count); returns its number."""
    row = BlockageRow(
        host=blockage.host,
        need=blockage.need,
        begins=blockage.begins,
        ends=blockage.ends,
        why=blockage.why,
        actor=blockage.actor,
        created=now,
    )
    session.add(row)
    session.flush()
    add_event(session, kind="blockage", now=now, data={"blockage": row.id, "what": "added", "by": blockage.actor})
    return row.id


def remove_blockage(session: Session, number: int, *, actor: str, now: datetime) -> bool:
    """Take a blockage away; False when somebody else did."""
    if not matched(
        session,
        update(BlockageRow)
        .where(BlockageRow.id == number, BlockageRow.removed.is_(None))
        .values(removed=now, removed_by=actor),
    ):
        return False
    add_event(session, kind="blockage", now=now, data={"blockage": number, "what": "removed", "by": actor})
    return True
