"""Queries on how jobs and tests went over time: each reads a bounded number of rows by an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session, aliased

from lab.db.tables import AttemptHostRow, AttemptRow, FlightRevisionRow, FlightRow, HostRow, StepRow
from lab.errors import NotFoundError
from lab.flights.history import Run
from lab.flights.status import StepStatus
from lab.hosts.durations import host_class
from lab.hosts.model import Host

_BAD = [status.value for status in (StepStatus.FAIL, StepStatus.BROKEN, StepStatus.BLOCKED, StepStatus.ABORTED)]


def runs_of_job(
    session: Session, job: str, *, branch: str = "", before: int | None = None, limit: int = 300
) -> list[Run]:
    """The attempts at jobs of this name, those of the newest flight first; `before` is a flight (exclusive).

    `NotFoundError` when there never was such a job.
    """
    rows = _attempts(session, job, branch=branch, before=before, limit=limit)
    attempts = [row.id for row in rows]
    hosts, first_bad = _hosts_of(session, attempts), _first_bad(session, attempts)
    newest = _newest(rows)
    found = []
    for row in rows:
        bad = first_bad.get(row.id)
        found.append(
            Run(
                flight=row.flight,
                branch=row.branch,
                job=job,
                attempt=row.number,
                newest=newest[row.flight] == row.number,
                status=row.status,
                hosts=tuple(hosts[row.id]),
                started=row.started,
                seconds=_seconds(row.started, row.finished),
                stepno=bad.stepno if bad else None,
                testid=bad.testid if bad else "",
                reason=(bad.reason if bad else "") or row.reason,
            )
        )
    return found


def runs_of_test(
    session: Session, job: str, testid: str, *, branch: str = "", before: int | None = None, limit: int = 300
) -> list[Run]:
    """The runs of one test of jobs of this name, as `runs_of_job`; attempts that never came to it are left out."""
    rows = _attempts(session, job, branch=branch, before=before, limit=limit)
    attempts = [row.id for row in rows]
    hosts, newest = _hosts_of(session, attempts), _newest(rows)
    columns = (StepRow.attempt, StepRow.stepno, StepRow.status, StepRow.started, StepRow.finished, StepRow.reason)
    query = select(*columns).where(StepRow.attempt.in_(attempts), StepRow.testid == testid)
    steps = {step.attempt: step for step in session.execute(query)}
    if not steps and before is None and not branch:
        raise NotFoundError(
            f"{testid!r} was not among the newest runs of {job}", hint=f"/history/{job} lists its tests"
        )
    return [
        Run(
            flight=row.flight,
            branch=row.branch,
            job=job,
            attempt=row.number,
            newest=newest[row.flight] == row.number,
            status=step.status,
            hosts=tuple(hosts[row.id]),
            started=step.started,
            seconds=_seconds(step.started, step.finished),
            stepno=step.stepno,
            testid=testid,
            reason=step.reason,
        )
        for row in rows
        if (step := steps.get(row.id)) is not None
    ]


def _attempts(
    session: Session, job: str, *, branch: str, before: int | None, limit: int
) -> Sequence[Row[int, int, int, str, datetime, datetime | None, str, str]]:
    query = (
        select(
            AttemptRow.id,
            AttemptRow.flight,
            AttemptRow.number,
            AttemptRow.status,
            AttemptRow.started,
            AttemptRow.finished,
            AttemptRow.reason,
            FlightRow.branch,
        )
        .join(FlightRow, FlightRow.id == AttemptRow.flight)
        .where(AttemptRow.job == job)
        .order_by(AttemptRow.flight.desc(), AttemptRow.number.desc())
        .limit(limit)
    )
    if branch:
        query = query.where(FlightRow.branch == branch)
    if before is not None:
        query = query.where(AttemptRow.flight < before)
    rows = session.execute(query).all()
    if not rows and session.scalar(select(AttemptRow.id).where(AttemptRow.job == job).limit(1)) is None:
        raise NotFoundError(f"no job {job!r} was ever run", hint="/history lists the jobs that were")
    return rows


def _newest(rows: Iterable[Row[int, int, int, str, datetime, datetime | None, str, str]]) -> dict[int, int]:
    newest: dict[int, int] = {}
    for row in rows:
        newest[row.flight] = max(row.number, newest.get(row.flight, 0))
    return newest


def _hosts_of(session: Session, attempts: Sequence[int]) -> dict[int, list[str]]:
    hosts: dict[int, list[str]] = defaultdict(list)
    query = select(AttemptHostRow.attempt, AttemptHostRow.host).where(AttemptHostRow.attempt.in_(attempts))
    for attempt, host in session.execute(query.order_by(AttemptHostRow.attempt, AttemptHostRow.position)):
        hosts[attempt].append(host)
    return hosts


def _first_bad(session: Session, attempts: Sequence[int]) -> dict[int, Row[int, int, str, str]]:
    columns = (StepRow.attempt, StepRow.stepno, StepRow.testid, StepRow.reason)
    query = select(*columns).where(StepRow.attempt.in_(attempts), StepRow.status.in_(_BAD))
    # the last one written of an attempt is its first
    return {row.attempt: row for row in session.execute(query.order_by(StepRow.attempt, StepRow.stepno.desc()))}


def _seconds(started: datetime, finished: datetime | None) -> float | None:
    return (finished - started).total_seconds() if finished else None


def tests_of(session: Session, job: str, flights: Sequence[int]) -> dict[str, dict[str, int]]:
    """The tests of a job in these flights, in the order in which they run: how often each had which status."""
    query = (
        select(StepRow.testid, StepRow.status, func.count(), func.max(StepRow.stepno))
        .join(AttemptRow, AttemptRow.id == StepRow.attempt)
        .where(AttemptRow.job == job, AttemptRow.flight.in_(flights))
        .group_by(StepRow.testid, StepRow.status)
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    place: dict[str, int] = defaultdict(int)  # the last one: an attempt that ended early had fewer before it
    for testid, status, count, last in session.execute(query):
        found[testid][status] = count
        place[testid] = max(place[testid], last)
    return {testid: found[testid] for testid in sorted(found, key=lambda testid: (place[testid], testid))}


def revisions_of(session: Session, flights: Sequence[int]) -> dict[int, dict[str, str]]:
    """Which revision of each source tree these flights tested; flights of which nothing is known are left out."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    columns = (FlightRevisionRow.flight, FlightRevisionRow.tree, FlightRevisionRow.revision)
    for flight, tree, revision in session.execute(select(*columns).where(FlightRevisionRow.flight.in_(flights))):
        found[flight][tree] = revision
    return found


@dataclass(frozen=True, kw_only=True)
class RanJob:
    """A job name that was run: how often, and in which flight last."""

    job: str
    runs: int
    flight: int


def list_jobs(session: Session) -> list[RanJob]:
    """All names of jobs that were ever run, by name. Reads an index only."""
    query = select(AttemptRow.job, func.count(), func.max(AttemptRow.flight)).group_by(AttemptRow.job)
    return [
        RanJob(job=job, runs=runs, flight=flight)
        for job, runs, flight in session.execute(query.order_by(AttemptRow.job))
    ]


@dataclass(frozen=True, kw_only=True)
class HostRun:
    """An attempt that ran on a host, in some role; `newest`: no later attempt at its job was made."""

    flight: int
    job: str
    attempt: int
    newest: bool
    status: str
    role: str
    started: datetime
    finished: datetime | None


def runs_on(session: Session, host: str, *, limit: int = 20) -> list[HostRun]:
    """What ran on a host, newest first."""
    later = aliased(AttemptRow)
    last = select(func.max(later.number)).where(later.flight == AttemptRow.flight, later.job == AttemptRow.job)
    rows = session.execute(
        select(
            AttemptRow.flight,
            AttemptRow.job,
            AttemptRow.number,
            last.scalar_subquery(),
            AttemptRow.status,
            AttemptHostRow.role,
            AttemptRow.started,
            AttemptRow.finished,
        )
        .join(AttemptRow, AttemptRow.id == AttemptHostRow.attempt)
        .where(AttemptHostRow.host == host)
        .order_by(AttemptHostRow.attempt.desc())
        .limit(limit)
    )
    return [
        HostRun(
            flight=flight,
            job=job,
            attempt=number,
            newest=number == newest,
            status=status,
            role=role,
            started=started,
            finished=finished,
        )
        for flight, job, number, newest, status, role, started, finished in rows
    ]


def classes_of(session: Session) -> dict[str, str]:
    """The class of every host that is or was in the lab."""
    rows = session.execute(select(HostRow.name, HostRow.arch, HostRow.flags))
    return {name: host_class(Host(name=name, arch=arch, flags=frozenset(flags))) for name, arch, flags in rows}
