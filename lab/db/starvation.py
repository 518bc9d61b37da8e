"""The flights whose last jobs wait, as `lab.flights.starvation` judges them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lab.db.tables import AttemptRow, FlightRow, JobRow
from lab.flights.starvation import FlightWait
from lab.flights.status import JobStatus


def waiting_flights(
    session: Session, expected: Mapping[int, Mapping[str, float]], now: datetime, done_share: float
) -> dict[int, FlightWait]:
    """The unfinished flights of which at least that share of the jobs has ended, and all that is left is queued.

    `expected` has the queued jobs of each flight, and when each is expected to have ended. A flight of which something
    still runs is not held up by what waits.
    """
    sizes = select(JobRow.flight, func.count()).join(FlightRow).where(FlightRow.finished.is_(None))
    # Counting is by an index alone; of a long queue few flights are left after it.
    held_up = [
        flight
        for flight, jobs in session.execute(sizes.group_by(JobRow.flight))
        if flight in expected and jobs - len(expected[flight]) >= done_share * jobs
    ]
    found = {flight: _judged(session, flight, expected[flight], now) for flight in held_up}
    return {flight: wait for flight, wait in found.items() if wait is not None}


def _judged(session: Session, flight: int, expected: Mapping[str, float], now: datetime) -> FlightWait | None:
    jobs = {
        name: JobStatus(status)
        for name, status in session.execute(select(JobRow.name, JobRow.status).where(JobRow.flight == flight))
    }
    if any(status.active for status in jobs.values()):
        return None
    started = session.scalars(select(FlightRow.started).where(FlightRow.id == flight)).one()
    last = session.scalar(select(func.max(AttemptRow.finished)).where(AttemptRow.flight == flight))
    return FlightWait(
        started=started.timestamp(),
        jobs=len(jobs),
        ended=sum(status.final for status in jobs.values()),
        others_end=(last or now).timestamp(),
        waiting={job: end for job, end in expected.items() if jobs.get(job) is JobStatus.QUEUED},
    )
