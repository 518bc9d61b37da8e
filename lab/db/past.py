"""What jobs did in the past: what each asked for, when it came, and how long its last attempt took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from lab.db.tables import AttemptRow, FlightRow, JobRow, RunvarRow
from lab.flights.model import Job, JobKey, Runvar
from lab.flights.status import JobStatus

_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class PastJob:
    """A job that has ended after it ran."""

    job: Job
    tenant: str
    priority: int
    position: int
    queued: datetime
    seconds: float


def load_past(session: Session, most: int) -> Iterator[PastJob]:
    """The newest jobs that ran to an end, at most so many; the oldest of them first."""
    ended = [status.value for status in (JobStatus.PASS, JobStatus.FAIL, JobStatus.BROKEN)]
    rows = session.execute(
        select(
            JobRow.flight,
            JobRow.name,
            JobRow.recipe,
            JobRow.status,
            JobRow.queued,
            JobRow.priority,
            JobRow.position,
            FlightRow.tenant,
            AttemptRow.started,
            AttemptRow.finished,
        )
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .join(AttemptRow, and_(AttemptRow.flight == JobRow.flight, AttemptRow.job == JobRow.name))
        .where(JobRow.status.in_(ended), AttemptRow.status == JobRow.status, AttemptRow.finished.is_not(None))
        .order_by(JobRow.flight.desc(), JobRow.position.desc(), AttemptRow.number.desc())
        .limit(most * 3)
    ).all()
    newest = {(row.flight, row.name): row for row in reversed(rows)}
    kept = list(newest.items())[-most:]
    runvars = _runvars(session, {flight for (flight, _name), _row in kept})
    for (flight, name), row in kept:
        job = Job(
            flight=flight,
            name=name,
            recipe=row.recipe,
            status=JobStatus(row.status),
            runvars=tuple(runvars.get((flight, name), ())),
            queued=row.queued,
        )
        yield PastJob(
            job=job,
            tenant=row.tenant,
            priority=row.priority,
            position=row.position,
            queued=row.queued,
            seconds=max((row.finished - row.started).total_seconds(), 0.0),
        )


def _runvars(session: Session, flights: set[int]) -> dict[JobKey, list[Runvar]]:
    found: dict[JobKey, list[Runvar]] = defaultdict(list)
    if flights:
        wanted = RunvarRow.flight.between(min(flights), max(flights))
        columns = select(RunvarRow.flight, RunvarRow.job, RunvarRow.name, RunvarRow.value, RunvarRow.synth)
        for flight, job, name, value, synth in session.execute(columns.where(wanted)).yield_per(_AT_ONCE):
            found[flight, job].append(Runvar(name=name, value=value, synth=synth))
    return found
