"""What ran on a host, and who holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lab.db.history import HostRun
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


def host_jobs(runs: Iterable[HostRun], now: datetime) -> list[HostJob]:
    """Runs on a host as they are shown."""
    return [
        HostJob(
            flight=run.flight,
            job=run.job,
            url=job_url(run.flight, run.job, attempt=None if run.newest else run.attempt),
            attempt=run.attempt,
            status=run.status,
            role=run.role,
            started=run.started,
            seconds=seconds_of(run.started, run.finished, now),
        )
        for run in runs
    ]


def holder_url(holder: str | None) -> str:
    """The page of the job that holds a host (`FLIGHT.JOB`), if it is a job."""
    flight, dot, job = (holder or "").partition(".")
    return job_url(int(flight), job) if dot and job and flight.isdecimal() else ""
