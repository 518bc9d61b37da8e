"""What the leader reads: queued jobs and running attempts, all or those that changed, in a few plain queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, select, true
from sqlalchemy.orm import Session

from lab.db.session import one_of
from lab.db.tables import AttemptHostRow, AttemptRow, FlightRow, JobRow, RunvarRow
from lab.flights.model import Attempt, Job, JobKey, Runvar
from lab.flights.status import JobStatus

_AT_ONCE = 400
"""Keys named in one query: SQLite allows 32,766 parameters, PostgreSQL as many."""


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A queued job: with its runvars and its broken attempts, and with what puts it into its place in the queue."""

    job: Job
    tenant: str
    priority: int
    position: int


@dataclass(frozen=True, kw_only=True)
class Running:
    """An attempt that has not ended, and the hosts it holds (by role)."""

    attempt: int
    flight: int
    job: str
    recipe: str
    tenant: str
    started: datetime
    hosts: Mapping[str, str]


def load_queued(session: Session, keys: Collection[JobKey] | None = None) -> Iterator[Queued]:
    """The jobs of these (flight, name) that are queued; all that are when there are no `keys`."""
    for part in _parts(keys):
        yield from _load_queued(session, part)


def _load_queued(session: Session, keys: Collection[JobKey] | None) -> Iterator[Queued]:
    wanted = and_(JobRow.status == JobStatus.QUEUED.value, _among(keys))
    runvars: dict[JobKey, list[Runvar]] = defaultdict(list)
    of_job = and_(RunvarRow.flight == JobRow.flight, RunvarRow.job == JobRow.name)
    found = select(RunvarRow.flight, RunvarRow.job, RunvarRow.name, RunvarRow.value, RunvarRow.synth)
    for flight, named, name, value, synth in session.execute(found.join(JobRow, of_job).where(wanted)):
        runvars[flight, named].append(Runvar(name=name, value=value, synth=synth))
    attempts: dict[JobKey, list[Attempt]] = defaultdict(list)
    for row, hosts in _with_hosts(
        session,
        select(
            AttemptRow.id,
            AttemptRow.flight,
            AttemptRow.job,
            AttemptRow.number,
            AttemptRow.started,
            AttemptRow.worker,
        )
        .join(JobRow, and_(AttemptRow.flight == JobRow.flight, AttemptRow.job == JobRow.name))
        .where(wanted, AttemptRow.status == JobStatus.BROKEN.value),
    ):
        attempt, flight, name, number, started, worker = row
        attempts[flight, name].append(
            Attempt(id=attempt, number=number, status=JobStatus.BROKEN, hosts=hosts, started=started, worker=worker)
        )
    jobs = (
        select(
            JobRow.flight, JobRow.name, JobRow.recipe, JobRow.queued, JobRow.priority, JobRow.position, FlightRow.tenant
        )
        .join(FlightRow, FlightRow.id == JobRow.flight)
        .where(wanted)
    )
    for flight, name, recipe, queued, priority, position, tenant in session.execute(jobs):
        job = Job(
            flight=flight,
            name=name,
            recipe=recipe,
            status=JobStatus.QUEUED,
            runvars=tuple(runvars.get((flight, name), ())),
            attempts=tuple(attempts.get((flight, name), ())),
            queued=queued,
        )
        yield Queued(job=job, tenant=tenant, priority=priority, position=position)


def load_running(session: Session, keys: Collection[JobKey] | None = None) -> Iterator[Running]:
    """The attempts at these jobs that have not ended; all when there are no `keys`."""
    for part in _parts(keys):
        query = (
            select(
                AttemptRow.id, AttemptRow.flight, AttemptRow.job, AttemptRow.started, JobRow.recipe, FlightRow.tenant
            )
            .join(JobRow, and_(AttemptRow.flight == JobRow.flight, AttemptRow.job == JobRow.name))
            .join(FlightRow, FlightRow.id == AttemptRow.flight)
            .where(AttemptRow.finished.is_(None), _among(part))
        )
        for row, hosts in _with_hosts(session, query):
            attempt, flight, job, started, recipe, tenant = row
            yield Running(
                attempt=attempt, flight=flight, job=job, started=started, recipe=recipe, tenant=tenant, hosts=hosts
            )


def _with_hosts(
    session: Session, attempts: Select[*tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], dict[str, str]]]:
    """Each row of a query on attempts (whose first column is the id), with the attempt's hosts by role."""
    rows = session.execute(attempts).all()
    hosts: dict[int, dict[str, str]] = defaultdict(dict)
    ids = iter([row[0] for row in rows])
    while some := list(islice(ids, _AT_ONCE)):
        held = select(AttemptHostRow.attempt, AttemptHostRow.role, AttemptHostRow.host)
        for attempt, role, host in session.execute(
            held.where(AttemptHostRow.attempt.in_(some)).order_by(AttemptHostRow.position)
        ):
            hosts[attempt][role] = host
    for row in rows:
        yield tuple(row), hosts[row[0]]


def _among(keys: Collection[JobKey] | None) -> ColumnElement[bool]:
    return true() if keys is None else one_of(JobRow.flight, JobRow.name, keys)


def _parts(keys: Collection[JobKey] | None) -> Iterator[Collection[JobKey] | None]:
    if keys is None:
        yield None
        return
    left = iter(keys)
    while part := list(islice(left, _AT_ONCE)):
        yield part
