"""Queries on flights, jobs, attempts, steps and runvars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, selectinload

from lab.db.session import matched
from lab.db.tables import AttemptHostRow, AttemptRow, EventRow, FlightRow, HostRow, JobRow, RunvarRow, StepRow, WaitRow
from lab.db.waits import read_wait
from lab.errors import NotFoundError
from lab.flights.model import Attempt, Flight, FlightSummary, Job, JobKey, JobSpec, Runvar, StepResult
from lab.flights.status import Blessing, JobStatus, StepStatus, advance, flight_status

_Steps = Mapping[int, Sequence[StepResult]]
"""the steps of attempts, by their id"""

_BRIEF = (
    StepRow.attempt,
    StepRow.stepno,
    StepRow.testid,
    StepRow.step,
    StepRow.status,
    StepRow.started,
    StepRow.finished,
    StepRow.host,
    StepRow.reason,
)


def _load_steps(session: Session, flight: int, job: str | None = None, *, evidence: bool = True) -> _Steps:
    """The steps of a flight or of one job, each as columns: a flight has thousands."""
    columns = (*_BRIEF, StepRow.evidence, StepRow.log, StepRow.console) if evidence else _BRIEF
    query = select(*columns).join(AttemptRow, AttemptRow.id == StepRow.attempt).where(AttemptRow.flight == flight)
    if job is not None:
        query = query.where(AttemptRow.job == job)
    statuses = {status.value: status for status in StepStatus}
    found: dict[int, list[StepResult]] = defaultdict(list)
    for attempt, stepno, testid, step, status, started, finished, host, reason, *more in session.execute(
        query.order_by(StepRow.attempt, StepRow.stepno)
    ):
        seen, log, console = more or ({}, "", {})
        result = StepResult(
            stepno=stepno,
            testid=testid,
            step=step,
            status=statuses[status],
            started=started,
            finished=finished,
            host=host,
            reason=reason,
            evidence=seen,
            log=log,
            console={name: (span[0], span[1]) for name, span in console.items()},
        )
        found[attempt].append(result)
    return found


def _load_jobs(
    session: Session, flight: int, names: Collection[str] | None = None, *, steps: _Steps = MappingProxyType({})
) -> list[Job]:
    """The jobs of a flight, or those of these names, in their order.

    Each kind of row is read at once, as columns, by the flight's number: SQLite looks lists of pairs up by no index.
    """

    def mine(flight_column: InstrumentedAttribute[int], name: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        return flight_column == flight if names is None else and_(flight_column == flight, name.in_(names))

    runvars: dict[str, list[Runvar]] = defaultdict(list)
    found = select(RunvarRow.job, RunvarRow.name, RunvarRow.value, RunvarRow.synth)
    for job, name, value, synth in session.execute(found.where(mine(RunvarRow.flight, RunvarRow.job))):
        runvars[job].append(Runvar(name=name, value=value, synth=synth))
    jobs = (
        select(JobRow.name, JobRow.recipe, JobRow.status, JobRow.reason, JobRow.queued)
        .where(mine(JobRow.flight, JobRow.name))
        .order_by(JobRow.position)
    )
    rows = session.execute(jobs).all()
    waits = {}
    if any(row.status == JobStatus.QUEUED.value for row in rows):
        waiting = select(WaitRow).where(mine(WaitRow.flight, WaitRow.job)).execution_options(populate_existing=True)
        waits = {row.job: read_wait(row) for row in session.scalars(waiting)}
    attempts = _load_attempts(session, mine(AttemptRow.flight, AttemptRow.job), steps)
    listed = []
    for name, recipe, status, reason, queued in rows:
        wait = waits.get(name) if status == JobStatus.QUEUED.value else None
        listed.append(
            Job(
                flight=flight,
                name=name,
                recipe=recipe,
                status=JobStatus(status),
                reason=wait.text if wait else reason,
                queued=queued,
                wait=wait,
                runvars=tuple(sorted(runvars.get(name, ()), key=lambda runvar: runvar.name)),
                attempts=tuple(attempts.get(name, ())),
            )
        )
    return listed


def _load_attempts(session: Session, which: ColumnElement[bool], steps: _Steps) -> dict[str, list[Attempt]]:
    """Attempts at jobs of one flight, by the name of the job, the oldest first."""
    hosts: dict[int, dict[str, str]] = defaultdict(dict)
    held = select(AttemptHostRow.attempt, AttemptHostRow.role, AttemptHostRow.host)
    held = held.join(AttemptRow, AttemptRow.id == AttemptHostRow.attempt).where(which)
    for attempt, role, host in session.execute(held.order_by(AttemptHostRow.attempt, AttemptHostRow.position)):
        hosts[attempt][role] = host
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    columns = (
        AttemptRow.id,
        AttemptRow.job,
        AttemptRow.number,
        AttemptRow.status,
        AttemptRow.started,
        AttemptRow.finished,
        AttemptRow.worker,
        AttemptRow.reason,
    )
    for row in session.execute(select(*columns).where(which).order_by(AttemptRow.number)):
        attempts[row.job].append(
            Attempt(
                id=row.id,
                number=row.number,
                status=JobStatus(row.status),
                started=row.started,
                finished=row.finished,
                worker=row.worker,
                reason=row.reason,
                hosts=hosts.get(row.id, {}),
                steps=tuple(steps.get(row.id, ())),
            )
        )
    return attempts


def _flight(row: FlightRow, jobs: Iterable[Job]) -> Flight:
    listed = tuple(jobs)
    return Flight(
        id=row.id,
        branch=row.branch,
        intended=Blessing(row.intended),
        blessing=Blessing(row.blessing),
        status=flight_status(job.status for job in listed),
        started=row.started,
        finished=row.finished,
        submitter=row.submitter,
        tenant=row.tenant,
        note=row.note,
        jobs=listed,
    )


def add_flight(
    session: Session,
    *,
    branch: str,
    intended: Blessing,
    submitter: str,
    tenant: str = "",
    note: str,
    jobs: Sequence[JobSpec],
    now: datetime,
    priority: int = 0,
) -> int:
    """Insert a flight with all its jobs queued; returns its number."""
    row = FlightRow(
        branch=branch,
        intended=intended.value,
        blessing=Blessing.RUNNING.value,
        started=now,
        submitter=submitter,
        tenant=tenant or submitter,
        note=note,
        jobs=[
            JobRow(
                name=spec.name,
                position=position,
                recipe=spec.recipe,
                status=JobStatus.QUEUED.value,
                reason="",
                priority=priority,
                queued=now,
                runvars=[RunvarRow(name=name, value=value, synth=False) for name, value in spec.runvars.items()],
            )
            for position, spec in enumerate(jobs)
        ],
    )
    session.add(row)
    session.flush()
    return row.id


def list_flights(
    session: Session, *, branch: str | None = None, before: int | None = None, limit: int = 50
) -> list[FlightSummary]:
    """The newest flights first, their jobs only counted; `before` is a flight number (exclusive) to page on."""
    query = select(FlightRow).order_by(FlightRow.id.desc()).limit(limit)
    if branch is not None:
        query = query.where(FlightRow.branch == branch)
    if before is not None:
        query = query.where(FlightRow.id < before)
    return _summaries(session, session.scalars(query).all())


def flight_before(session: Session, flight: int, branch: str) -> int | None:
    """The newest flight of a branch that is older than `flight`."""
    return session.scalar(select(func.max(FlightRow.id)).where(FlightRow.branch == branch, FlightRow.id < flight))


def summarise_flight(session: Session, flight: int) -> FlightSummary:
    """A flight, its jobs only counted."""
    row = session.get(FlightRow, flight)
    if row is None:
        raise NotFoundError(f"there is no flight {flight}", hint="`lab flight list` shows them")
    return _summaries(session, [row])[0]


def _summaries(session: Session, rows: Sequence[FlightRow]) -> list[FlightSummary]:
    if not rows:
        return []
    counted = select(JobRow.flight, JobRow.status, func.count()).where(JobRow.flight.in_([row.id for row in rows]))
    counts: dict[int, dict[JobStatus, int]] = {row.id: {} for row in rows}
    for flight, status, count in session.execute(counted.group_by(JobRow.flight, JobRow.status)):
        counts[flight][JobStatus(status)] = count
    return [_summary(row, counts[row.id]) for row in rows]


def _summary(row: FlightRow, counts: Mapping[JobStatus, int]) -> FlightSummary:
    return FlightSummary(
        id=row.id,
        branch=row.branch,
        intended=Blessing(row.intended),
        blessing=Blessing(row.blessing),
        status=flight_status(counts),
        started=row.started,
        finished=row.finished,
        submitter=row.submitter,
        tenant=row.tenant,
        note=row.note,
        counts=counts,
    )


def list_branches(session: Session) -> list[str]:
    """The branches that have flights, by name."""
    return list(session.scalars(select(FlightRow.branch).distinct().order_by(FlightRow.branch)))


def branch_of(session: Session, flight: int) -> str:
    """The branch of a flight; empty when there is no such flight."""
    return session.scalar(select(FlightRow.branch).where(FlightRow.id == flight)) or ""


def resolve_flight(session: Session, name: str) -> int:
    """The number of the flight called `name`: a number, or `latest`. `NotFoundError` when there is none."""
    if name == "latest":
        newest = session.scalar(select(func.max(FlightRow.id)))
        if newest is None:
            raise NotFoundError("there is no flight yet", hint="start one with `lab flight run`")
        return int(newest)
    if name.isdecimal() and len(name) < 10 and session.get(FlightRow, int(name)) is not None:
        return int(name)
    raise NotFoundError(f"there is no flight {name!r}", hint="`lab flight list` shows them; `latest` is the newest")


def load_flight(session: Session, flight: int, *, evidence: bool = True) -> Flight:
    """A flight with everything in it; or without what was seen in its steps (`evidence`, `log`, `console`)."""
    row = session.get(FlightRow, flight)
    if row is None:
        raise NotFoundError(f"there is no flight {flight}", hint="`lab flight list` shows them")
    return _flight(row, _load_jobs(session, flight, steps=_load_steps(session, flight, evidence=evidence)))


def load_job(session: Session, flight: int, name: str) -> Job:
    """A job with everything in it."""
    found = _load_jobs(session, flight, [name], steps=_load_steps(session, flight, name))
    if not found:
        raise NotFoundError(f"flight {flight} has no job {name!r}", hint=f"`lab flight show {flight}` lists its jobs")
    return found[0]


def newest_job_on(session: Session, *, recipe: str, host: str) -> Job | None:
    """The newest job of a recipe that passed on a host; None when there was none."""
    row = session.execute(
        select(JobRow.flight, JobRow.name)
        .join(AttemptRow, (AttemptRow.flight == JobRow.flight) & (AttemptRow.job == JobRow.name))
        .join(AttemptHostRow, AttemptHostRow.attempt == AttemptRow.id)
        .where(
            JobRow.recipe == recipe,
            JobRow.status == JobStatus.PASS.value,
            AttemptRow.status == JobStatus.PASS.value,
            AttemptHostRow.host == host,
        )
        .order_by(JobRow.flight.desc(), JobRow.position.desc())
        .limit(1)
    ).first()
    return _load_jobs(session, row.flight, [row.name])[0] if row is not None else None


def finished_flights(session: Session) -> list[tuple[int, Blessing, datetime]]:
    """The flights that have ended: number, what each was intended as, and when it ended."""
    query = select(FlightRow.id, FlightRow.intended, FlightRow.finished).where(FlightRow.finished.is_not(None))
    rows = session.execute(query.order_by(FlightRow.id))
    return [(number, Blessing(intended), finished) for number, intended, finished in rows if finished is not None]


def unfinished_flights(session: Session) -> list[int]:
    """Flights that still have a job to run or running, or that were not closed yet."""
    return list(session.scalars(select(FlightRow.id).where(FlightRow.finished.is_(None)).order_by(FlightRow.id)))


def load_jobs(session: Session, names: Iterable[JobKey]) -> dict[JobKey, Job]:
    """The jobs of these (flight, name), without their steps; those that do not exist are left out."""
    found: dict[JobKey, Job] = {}
    by_flight: dict[int, set[str]] = {}
    for flight, name in names:
        by_flight.setdefault(flight, set()).add(name)
    for flight, wanted in by_flight.items():
        found |= {(flight, job.name): job for job in _load_jobs(session, flight, wanted)}
    return found


def lock_queued(session: Session, flight: int, job: str) -> bool:
    """Whether a job is queued; if so it stays it until this transaction does something about it."""
    query = select(JobRow.name).where(JobRow.flight == flight, JobRow.name == job)
    return session.scalar(query.where(JobRow.status == JobStatus.QUEUED.value).with_for_update()) is not None


def set_job_status(
    session: Session, flight: int, job: str, *, current: JobStatus, to: JobStatus, reason: str = ""
) -> bool:
    """Move a job; False when it is not (any more) in `current`: somebody else was first."""
    return matched(
        session,
        update(JobRow)
        .where(JobRow.flight == flight, JobRow.name == job, JobRow.status == current.value)
        .values(status=advance(current, to).value, reason=reason),
    )


def has_work(session: Session, flight: int) -> bool:
    """Whether a job of the flight has not ended, or an attempt still holds hosts. Its cost does not grow with jobs."""
    open_statuses = [status.value for status in JobStatus if not status.final]
    jobs = select(JobRow.name).where(JobRow.flight == flight, JobRow.status.in_(open_statuses)).limit(1)
    attempts = select(AttemptRow.id).where(AttemptRow.flight == flight, AttemptRow.finished.is_(None)).limit(1)
    return session.scalar(jobs) is not None or session.scalar(attempts) is not None


def status_of(session: Session, flight: int) -> JobStatus:
    """How a flight stands, from its jobs."""
    found = session.scalars(select(JobRow.status).where(JobRow.flight == flight).distinct())
    return flight_status([JobStatus(status) for status in found])


def tenant_and_recipe(session: Session, flight: int, job: str) -> tuple[str, str]:
    """Whose job it is, and what it runs."""
    query = select(FlightRow.tenant, JobRow.recipe).join(JobRow, JobRow.flight == FlightRow.id)
    found = session.execute(query.where(JobRow.flight == flight, JobRow.name == job)).one()
    return found.tenant, found.recipe


def runvar_of(session: Session, flight: int, job: str, name: str) -> str:
    """The value of a job's runvar; empty when it has none."""
    return (
        session.scalar(
            select(RunvarRow.value).where(RunvarRow.flight == flight, RunvarRow.job == job, RunvarRow.name == name)
        )
        or ""
    )


def close_flight(session: Session, flight: int, *, blessing: Blessing | None, now: datetime) -> bool:
    """Mark a flight as finished, blessed as intended unless told; False when it already was."""
    return matched(
        session,
        update(FlightRow)
        .where(FlightRow.id == flight, FlightRow.finished.is_(None))
        .values(finished=now, blessing=blessing.value if blessing else FlightRow.intended),
    )


def add_attempt(
    session: Session,
    flight: int,
    job: str,
    *,
    token: str,
    hosts: Sequence[tuple[str, str, int, bool]],
    now: datetime,
    until: datetime,
    build_site: str = "default",
) -> int:
    """Insert an attempt (hosts: role, host, fence, reused); returns its id. Outputs of the one before are dropped.

    It is for the workers of its hosts' site; without hosts, for those of `build_site`.
    """
    site = session.scalar(select(HostRow.site).where(HostRow.name == hosts[0][1])) if hosts else build_site
    number = (
        session.scalar(select(func.max(AttemptRow.number)).where(AttemptRow.flight == flight, AttemptRow.job == job))
        or 0
    ) + 1
    row = AttemptRow(
        flight=flight,
        job=job,
        number=number,
        status=JobStatus.PREPARING.value,
        token=token,
        site=site or "default",
        worker="",
        started=now,
        until=until,
        reason="",
        hosts=[
            AttemptHostRow(role=role, position=position, host=host, fence=fence, reused=reused)
            for position, (role, host, fence, reused) in enumerate(hosts)
        ],
    )
    session.add(row)
    for runvar in session.scalars(
        select(RunvarRow).where(RunvarRow.flight == flight, RunvarRow.job == job, RunvarRow.synth)
    ):
        session.delete(runvar)
    session.flush()
    return row.id


def find_attempt(session: Session, attempt: int) -> AttemptRow | None:
    """The row of an attempt, for the services that hold its token."""
    return session.get(AttemptRow, attempt, options=[selectinload(AttemptRow.hosts)])


def claim_attempt(session: Session, attempt: int, token: str, *, worker: str, until: datetime) -> bool:
    """Take an attempt nobody has taken yet; False when it is not to be had: exactly one worker gets True."""
    return matched(
        session,
        update(AttemptRow)
        .where(
            AttemptRow.id == attempt,
            AttemptRow.token == token,
            AttemptRow.worker == "",
            AttemptRow.status == JobStatus.PREPARING.value,
        )
        .values(worker=worker, until=until),
    )


def renew_attempt(session: Session, attempt: int, token: str, *, until: datetime) -> bool:
    """Hold an attempt until `until`; False when it is no longer held under `token`."""
    return matched(
        session,
        update(AttemptRow)
        .where(AttemptRow.id == attempt, AttemptRow.token == token, AttemptRow.finished.is_(None))
        .values(until=until),
    )


def cut_holds(session: Session, until: datetime, *, beyond: datetime) -> int:
    """Let holds that would last beyond `beyond` end at `until`; returns how many. Nobody is given so long a hold."""
    result = session.execute(
        update(AttemptRow).where(AttemptRow.finished.is_(None), AttemptRow.until > beyond).values(until=until)
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def set_attempt_status(
    session: Session,
    attempt: int,
    token: str,
    status: JobStatus,
    *,
    reason: str = "",
    finished: datetime | None = None,
    blames: str | None = None,
) -> bool:
    """Write an attempt's status under its token; False when it has ended already or the token is another's.

    `blames`: the host on which it broke.
    """
    return matched(
        session,
        update(AttemptRow)
        .where(AttemptRow.id == attempt, AttemptRow.token == token, AttemptRow.finished.is_(None))
        .values(status=status.value, reason=reason, finished=finished, blames=blames),
    )


def expired_attempts(session: Session, now: datetime) -> list[AttemptRow]:
    """Attempts whose holder has not renewed them in time."""
    return list(
        session.scalars(
            select(AttemptRow)
            .where(AttemptRow.finished.is_(None), AttemptRow.until < now)
            .options(selectinload(AttemptRow.hosts))
        )
    )


def count_tries(session: Session, flight: int, job: str) -> int:
    """How many attempts at a job a worker has taken up."""
    query = select(func.count()).where(AttemptRow.flight == flight, AttemptRow.job == job, AttemptRow.worker != "")
    return session.scalar(query) or 0


def active_attempts(session: Session, flight: int) -> list[AttemptRow]:
    """Attempts of a flight that have not ended."""
    return list(
        session.scalars(
            select(AttemptRow)
            .where(AttemptRow.flight == flight, AttemptRow.finished.is_(None))
            .options(selectinload(AttemptRow.hosts))
        )
    )


def next_expiry(session: Session) -> datetime | None:
    """When the first held attempt runs out."""
    return session.scalar(
        select(AttemptRow.until).where(AttemptRow.finished.is_(None)).order_by(AttemptRow.until).limit(1)
    )


def held(session: Session, attempt: int, token: str) -> bool:
    """True while `token` may write this attempt; it stays so until the transaction ends."""
    return (
        session.scalar(
            # locked, so that nobody settles the attempt between this question and the write that follows it
            select(AttemptRow.id)
            .where(AttemptRow.id == attempt, AttemptRow.token == token, AttemptRow.finished.is_(None))
            .with_for_update()
        )
        is not None
    )


def save_step(session: Session, attempt: int, step: StepResult) -> None:
    """Insert or update a step of an attempt."""
    session.merge(
        StepRow(
            attempt=attempt,
            stepno=step.stepno,
            testid=step.testid,
            step=step.step,
            status=step.status.value,
            started=step.started,
            finished=step.finished,
            host=step.host,
            reason=step.reason,
            evidence=dict(step.evidence),
            log=step.log,
            console={host: list(span) for host, span in step.console.items()},
        )
    )


def end_running_steps(session: Session, attempt: int, status: StepStatus, *, reason: str, now: datetime) -> None:
    """Close the steps a dead or fenced-off worker left running."""
    session.execute(
        update(StepRow)
        .where(StepRow.attempt == attempt, StepRow.status == StepStatus.RUNNING.value)
        .values(status=status.value, reason=reason, finished=now)
    )


def save_runvar(session: Session, flight: int, job: str, name: str, value: str) -> None:
    """Write an output of a step."""
    session.merge(RunvarRow(flight=flight, job=job, name=name, value=value, synth=True))


def add_event(
    session: Session, *, kind: str, now: datetime, flight: int | None = None, data: Mapping[str, object] | None = None
) -> None:
    """Record that something happened."""
    session.add(EventRow(at=now, flight=flight, kind=kind, data=dict(data or {})))


def events_after(
    session: Session, last: int, *, flight: int | None = None, limit: int = 500
) -> list[tuple[int, str, dict[str, object]]]:
    """(id, kind, data) of what happened after event `last`, oldest first."""
    query = select(EventRow).where(EventRow.id > last).order_by(EventRow.id).limit(limit)
    if flight is not None:
        query = query.where(EventRow.flight == flight)
    return [(row.id, row.kind, row.data) for row in session.scalars(query)]


def last_event(session: Session) -> int:
    """The id of the newest event; 0 when there is none."""
    return session.scalar(select(func.max(EventRow.id))) or 0


def job_status(session: Session, flight: int, job: str) -> JobStatus:
    """Where a job stands."""
    return JobStatus(session.scalars(select(JobRow.status).where(JobRow.flight == flight, JobRow.name == job)).one())


def site_of_attempt(session: Session, attempt: int) -> str:
    """The site whose workers an attempt is for; the default one's for an attempt that does not exist."""
    return session.scalar(select(AttemptRow.site).where(AttemptRow.id == attempt)) or "default"


def unclaimed_attempts(session: Session, *, before: datetime) -> list[tuple[int, str]]:
    """(id, token) of the attempts made before `before` that no worker has claimed."""
    rows = session.execute(
        select(AttemptRow.id, AttemptRow.token).where(
            AttemptRow.finished.is_(None), AttemptRow.worker == "", AttemptRow.started < before
        )
    )
    return [(attempt, token) for attempt, token in rows]
