"""Queries on why queued jobs wait, and on when they are expected to run.

The leader, who has the whole queue in memory, writes what has changed, a bounded number of rows at a time; whoever
asks reads a row or a page by an index. So neither a decision nor a page costs more because the queue is long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from lab.db.tables import JobRow, WaitRow
from lab.flights.model import Wait, Window

JobKey = tuple[int, str]
"""(flight, name)"""


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
    keys = tuple_(JobRow.flight, JobRow.name)
    found = session.execute(select(JobRow.flight, JobRow.name).where(keys.in_(list(waits))))
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
    dialect = session.get_bind().dialect.name
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(WaitRow)
    changed = {name: insert.excluded[name] for name in rows[0] if name not in ("flight", "job")}
    session.execute(insert.on_conflict_do_update(index_elements=["flight", "job"], set_=changed), rows)


def drop_waits(session: Session, jobs: Collection[JobKey]) -> None:
    """Forget why these jobs waited."""
    session.execute(delete(WaitRow).where(tuple_(WaitRow.flight, WaitRow.job).in_(list(jobs))))


def waits_written(session: Session) -> dict[JobKey, Wait]:
    """All that is written, for a leader that begins."""
    return {(row.flight, row.job): read_wait(row) for row in session.scalars(select(WaitRow))}
