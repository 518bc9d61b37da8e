"""What has to hold in a lab whatever was killed in it: checked on its database, its machines and a journal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from faults.machines import machine_pid
from lab.db.tables import AttemptRow, BookingRow, FlightRow, HostRow, JobRow, LeaseRow, StepRow
from lab.flights.status import JobStatus
from lab.hosts.leases import LeaseState
from lab.hosts.model import Health, HostState


@dataclass(frozen=True)
class Use:
    """Somebody's use of a host: from when until when (None: it never ended), in which process."""

    host: str
    job: str
    pid: int
    begin: float
    end: float | None


def violations(
    session: Session, machines: Path, *, deaths: Mapping[int, float], finished: Iterable[tuple[int, int, str]]
) -> list[str]:
    """Everything that does not hold once the lab has come to rest; empty when all is well.

    `deaths`: when (monotonic seconds) each killed process was killed. `finished`: the steps (attempt, number, status)
    that some process said it had written down as finished.
    """
    return [
        *_jobs(session),
        *_hosts(session, machines),
        *_leases(session),
        *_steps(session, finished),
        *_uses(read_uses(machines / "journal"), deaths),
    ]


def _jobs(session: Session) -> Iterator[str]:
    for flight in session.scalars(select(FlightRow).where(FlightRow.finished.is_(None))):
        yield f"flight {flight.id} was never closed"
    for job in session.scalars(select(JobRow)):
        wanted = job.name.partition("-")[0]
        if job.status != wanted:
            yield f"job {job.flight}.{job.name} should end as {wanted}, but is {job.status}: {job.reason}"
    outcomes: dict[tuple[int, str], list[AttemptRow]] = defaultdict(list)
    for attempt in session.scalars(select(AttemptRow).order_by(AttemptRow.flight, AttemptRow.job, AttemptRow.number)):
        outcomes[attempt.flight, attempt.job].append(attempt)
    for (flight, job), attempts in outcomes.items():
        told = ", ".join(f"{attempt.number} {attempt.status}" for attempt in attempts)
        if [attempt.number for attempt in attempts] != list(range(1, len(attempts) + 1)):
            yield f"the attempts of {flight}.{job} are not numbered one by one: {told}"
        if any(attempt.status != JobStatus.BROKEN.value for attempt in attempts[:-1]) or not attempts[-1].finished:
            yield f"{flight}.{job} was tried again after an outcome, or is still being tried: {told}"


def _hosts(session: Session, machines: Path) -> Iterator[str]:
    for host in session.scalars(select(HostRow)):
        if host.state != HostState.FREE.value or host.health not in (Health.GOOD.value, Health.SUSPECT.value):
            yield f"host {host.name} is {host.state}, its health {host.health}: {host.health_reason}"
        if machine_pid(machines / f"{host.name}.pid") is not None:
            yield f"the machine of {host.name} was left on"


def _leases(session: Session) -> Iterator[str]:
    for booking in session.scalars(select(BookingRow).where(BookingRow.state != LeaseState.ENDED.value)):
        yield f"the lease {booking.id} of {booking.holder} is still {booking.state}"
    rows = session.scalars(select(LeaseRow).order_by(LeaseRow.host, LeaseRow.fence)).all()
    for row in rows:
        if row.released is None:
            yield f"host {row.host} is still held by {row.holder}"
    for one, other in pairwise(rows):
        if one.host != other.host:
            continue
        if one.fence == other.fence:
            yield f"{one.holder} and {other.holder} got {one.host} under the same token {one.fence}"
        if one.released is None or other.since < one.released:
            yield f"{one.host} was leased to {one.holder} and to {other.holder} at one time"


def _steps(session: Session, finished: Iterable[tuple[int, int, str]]) -> Iterator[str]:
    there = {(row.attempt, row.stepno): row for row in session.scalars(select(StepRow))}
    for attempt, number, status in finished:
        row = there.get((attempt, number))
        if row is None or row.status != status or row.finished is None:
            yield f"step {number} of attempt {attempt} had ended as {status}; now it is {row and row.status}"
    for row in there.values():
        if row.finished is None:
            yield f"step {row.stepno} of attempt {row.attempt} never ended"


def read_uses(journal: Path) -> list[Use]:
    """What the journal says."""
    begun: dict[str, dict[str, object]] = {}
    ended: dict[str, float] = {}
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["what"] == "begin":
            begun[entry["use"]] = entry
        else:
            ended[entry["use"]] = entry["at"]
    return [
        Use(str(entry["host"]), str(entry["job"]), int(str(entry["pid"])), float(str(entry["at"])), ended.get(use))
        for use, entry in begun.items()
    ]


def _uses(uses: Iterable[Use], deaths: Mapping[int, float]) -> Iterator[str]:
    by_host = defaultdict(list)
    for use in uses:
        if use.end is None and use.pid not in deaths:
            yield f"{use.job} never ended on {use.host}, and its process {use.pid} was not killed"
        by_host[use.host].append((use.begin, use.end or deaths.get(use.pid, use.begin), use.job))
    for host, found in by_host.items():
        for (_, end, one), (begin, _, other) in pairwise(sorted(found)):
            if begin < end:
                yield f"{one} and {other} used {host} at one time"
