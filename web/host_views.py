"""What ran on a host, and who holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lab.flights.model import Flight
from web.times import job_url, seconds_of


@dataclass(frozen=True, kw_only=True)
class HostJob:
    """A job that ran on a host."""

    flight: int
    job: str
    url: str
    attempt: int
    status: str
    role: str
    started: datetime
    seconds: float


def jobs_on(host: str, flights: Iterable[Flight], now: datetime, *, limit: int = 20) -> list[HostJob]:
    """What ran on a host, newest first."""
    found = [
        HostJob(
            flight=flight.id,
            job=job.name,
            url=job_url(flight.id, job.name, attempt=None if attempt is job.last else attempt.number),
            attempt=attempt.number,
            status=attempt.status.value,
            role=role,
            started=attempt.started,
            seconds=seconds_of(attempt.started, attempt.finished, now),
        )
        for flight in flights
        for job in flight.jobs
        for attempt in job.attempts
        for role, name in attempt.hosts.items()
        if name == host
    ]
    return sorted(found, key=lambda ran: ran.started, reverse=True)[:limit]


def holder_url(holder: str | None) -> str:
    """The page of the job that holds a host (`FLIGHT.JOB`), if it is a job."""
    flight, dot, job = (holder or "").partition(".")
    return job_url(int(flight), job) if dot and job and flight.isdecimal() else ""
