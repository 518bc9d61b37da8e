"""Queries on why queued jobs wait, and on when they are expected to run.

The leader, who has the whole queue in memory, writes what has changed, a bounded number of rows at a time; whoever
asks reads a row or a page by an index. So neither a decision nor a page costs more because the queue is long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, and_, delete, func, select
from sqlalchemy.orm import Session

from lab.db.session import one_of, upsert
from lab.db.tables import FlightRow, JobRow, WaitRow
from lab.flights.model import JobKey, Wait, Window
from lab.flights.status import JobStatus


def read_wait(row: WaitRow) -> Wait:
    """A row as the value everybody passes on."""
    return Wait(
        kind=row.kind,
        text=row.text,
        data=row.data,
        place=row.place,
        start=_window(row.start_p50, row.start_p90),
        end=_window(row.end_p50, row.end_p90),
        hosts=row.hosts,
        updated=row.updated,
    )


def _window(p50: datetime | None, p90: datetime | None) -> Window | None:
    return Window(p50=p50, p90=p90) if p50 is not None and p90 is not None else None


def save_waits(session: Session, waits: Mapping[JobKey, Wait], now: datetime) -> None:
    """Write these, over what was said before; a job that does not exist any more is left out."""
    found = session.execute(select(JobRow.flight, JobRow.name).where(one_of(JobRow.flight, JobRow.name, waits.keys())))
    there = {(flight, job) for flight, job in found}
    rows = [
        {
            "flight": flight,
            "job": job,
            "kind": wait.kind,
            "text": wait.text,
            "data": dict(wait.data),
            "place": wait.place,
            "start_p50": wait.start.p50 if wait.start else None,
            "start_p90": wait.start.p90 if wait.start else None,
            "end_p50": wait.end.p50 if wait.end else None,
            "end_p90": wait.end.p90 if wait.end else None,
            "hosts": dict(wait.hosts),
            "updated": now,
        }
        for (flight, job), wait in waits.items()
        if (flight, job) in there
    ]
    if not rows:
        return
    insert = upsert(session, WaitRow)
    changed = {name: insert.excluded[name] for name in rows[0] if name not in ("flight", "job")}
    session.execute(insert.on_conflict_do_update(index_elements=["flight", "job"], set_=changed), rows)


def drop_waits(session: Session, jobs: Collection[JobKey]) -> None:
    """Forget why these jobs waited."""
    session.execute(delete(WaitRow).where(one_of(WaitRow.flight, WaitRow.job, jobs)))


def waits_written(session: Session) -> dict[JobKey, Wait]:
    """All that is written, for a leader that begins."""
    return {(row.flight, row.job): read_wait(row) for row in session.scalars(select(WaitRow))}


@dataclass(frozen=True, kw_only=True)
class QueueLine:
    """A queued job as the queue shows it; `wait` is None as long as no leader has looked at it."""

    flight: int
    job: str
    recipe: str
    tenant: str
    priority: int
    queued: datetime
    wait: Wait | None

    @property
    def id(self) -> str:
        """`flight.job`."""
        return f"{self.flight}.{self.job}"


_WAITING = (JobRow.status == JobStatus.QUEUED.value,)


def list_queue(
    session: Session, *, tenant: str = "", kind: str = "", limit: int = 100, offset: int = 0
) -> list[QueueLine]:
    """Who waits: first those that wait for hosts, by their place, then the others, by flight."""
    query = (
        select(JobRow, FlightRow.tenant, WaitRow)
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .outerjoin(WaitRow, and_(WaitRow.flight == JobRow.flight, WaitRow.job == JobRow.name))
        .where(*_WAITING)
    )
    if tenant:
        query = query.where(FlightRow.tenant == tenant)
    if kind:
        query = query.where(WaitRow.kind == kind)
    order = (WaitRow.place.is_(None), WaitRow.place, JobRow.flight, JobRow.position)
    return [_line(row) for row in session.execute(query.order_by(*order).limit(limit).offset(offset))]


def projected(session: Session, before: datetime, limit: int) -> list[QueueLine]:
    """The queued jobs that are expected to start before a moment, the first ones first."""
    query = (
        select(JobRow, FlightRow.tenant, WaitRow)
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .join(WaitRow, and_(WaitRow.flight == JobRow.flight, WaitRow.job == JobRow.name))
        .where(*_WAITING, WaitRow.start_p50 < before)
        .order_by(WaitRow.start_p50)
        .limit(limit)
    )
    return [_line(row) for row in session.execute(query)]


def _line(row: Row[JobRow, str, WaitRow | None]) -> QueueLine:
    job, tenant, wait = row
    return QueueLine(
        flight=job.flight,
        job=job.name,
        recipe=job.recipe,
        tenant=tenant,
        priority=job.priority,
        queued=job.queued,
        wait=read_wait(wait) if wait is not None else None,
    )


def expected_ends(session: Session, flights: Collection[int]) -> list[tuple[int, Window | None]]:
    """(flight, when it is expected to end) of each queued job of these flights; None when nobody can tell."""
    query = (
        select(JobRow.flight, WaitRow.end_p50, WaitRow.end_p90)
        .outerjoin(WaitRow, and_(WaitRow.flight == JobRow.flight, WaitRow.job == JobRow.name))
        .where(*_WAITING, JobRow.flight.in_(flights))
    )
    return [(flight, _window(p50, p90)) for flight, p50, p90 in session.execute(query)]


def count_queue(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs wait, by tenant and kind of reason (empty: no leader has looked at them yet)."""
    query = (
        select(FlightRow.tenant, WaitRow.kind, func.count())
        .select_from(JobRow)
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .outerjoin(WaitRow, and_(WaitRow.flight == JobRow.flight, WaitRow.job == JobRow.name))
        .where(*_WAITING)
        .group_by(FlightRow.tenant, WaitRow.kind)
    )
    return {(tenant, kind or ""): count for tenant, kind, count in session.execute(query)}
