"""The flights whose last jobs wait, as `lab.flights.starvation` judges them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from lab.db.tables import AttemptRow, FlightRow, JobRow, WaitRow
from lab.flights.starvation import FOREVER, FlightWait
from lab.flights.status import JobStatus

_OPEN = tuple(status.value for status in JobStatus if not status.final)


def waiting_flights(session: Session, now: datetime, done_share: float) -> dict[int, FlightWait]:
    """The unfinished flights of which at least that share of the jobs has ended, and all that is left is queued.

    A flight of which something still runs is not held up by what waits.
    """
    ended = func.sum(case((JobRow.status.in_(_OPEN), 0), else_=1))
    busy = func.sum(case((JobRow.status.in_(_OPEN[1:]), 1), else_=0))
    query = (
        select(JobRow.flight, FlightRow.started, func.count(), ended)
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .where(FlightRow.finished.is_(None))
        .group_by(JobRow.flight, FlightRow.started)
        .having(and_(ended >= done_share * func.count(), busy == 0))
    )
    found = {}
    for flight, started, jobs, done in session.execute(query):
        last = session.scalar(select(func.max(AttemptRow.finished)).where(AttemptRow.flight == flight))
        found[flight] = FlightWait(
            started=started.timestamp(),
            jobs=jobs,
            ended=int(done),
            others_end=(last or now).timestamp(),
            waiting=_waiting(session, flight, now),
        )
    return found


def _waiting(session: Session, flight: int, now: datetime) -> dict[str, float]:
    query = (
        select(JobRow.name, WaitRow.end_p50)
        .outerjoin(WaitRow, and_(WaitRow.flight == JobRow.flight, WaitRow.job == JobRow.name))
        .where(JobRow.flight == flight, JobRow.status == JobStatus.QUEUED.value)
    )
    return {job: max(end, now).timestamp() if end else FOREVER for job, end in session.execute(query)}
