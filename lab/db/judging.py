"""What the database knows of a flight's past, as a judge needs it. Each query reads whole lists by an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab.db.tables import AttemptHostRow, AttemptRow, FlightRevisionRow, FlightRow, GateRunRow, HostRow, JobRow, StepRow
from lab.flights.builds import RECIPE
from lab.flights.evidence import Counts, TestRuns
from lab.flights.past_results import (
    BLOCKED,
    BROKEN,
    FAIL,
    PASS,
    STARVED,
    FlightRun,
    JobRun,
    Past,
    Signature,
    StepRun,
)
from lab.flights.status import Blessing, StepStatus
from lab.hosts.durations import host_class
from lab.hosts.model import Host

COUNTED: Final = (Blessing.REAL.value, Blessing.REAL_RETEST.value)
"""The flights that judges look at."""

MOST_FLIGHTS: Final = 1000
"""So many flights of the same or the baseline's versions are looked at, the newest: OSSTest's limit."""

_MOST_AT_ONCE: Final = 5000
_GOOD: Final = (StepStatus.PASS.value, StepStatus.SKIPPED.value)


def load_run(session: Session, flight: int) -> FlightRun:
    """A flight as a judge sees it: of each job the newest attempt counts."""
    return _runs(session, [flight])[flight]


def revisions_of(session: Session, flight: int) -> dict[str, str]:
    """What a flight tests: the revision of each source tree."""
    query = select(FlightRevisionRow.tree, FlightRevisionRow.revision).where(FlightRevisionRow.flight == flight)
    return {row.tree: row.revision for row in session.execute(query)}


def flights_testing(session: Session, branch: str, versions: Mapping[str, str]) -> list[int]:
    """The ended flights of a branch that count and tested these revisions, the newest first; none for no revisions."""
    if not versions:
        return []
    query = select(FlightRow.id).where(FlightRow.branch == branch, FlightRow.blessing.in_(COUNTED))
    for tree, revision in versions.items():
        mine = select(FlightRevisionRow.flight).where(
            FlightRevisionRow.tree == tree, FlightRevisionRow.revision == revision
        )
        query = query.where(FlightRow.id.in_(mine))
    return list(session.scalars(query.order_by(FlightRow.id.desc()).limit(MOST_FLIGHTS)))


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What is compared: the revisions tested, and those of the baseline, by tree."""

    this: Mapping[str, str]
    that: Mapping[str, str]


def load_past(session: Session, run: FlightRun, branch: str, versions: Versions, also: Collection[int] = ()) -> Past:
    """The past of a flight; `also` are further flights of the same versions, whatever they count as."""
    same = [one for one in flights_testing(session, branch, versions.this) if one != run.flight]
    same = sorted({*same, *also} - {run.flight}, reverse=True)
    baseline = [one for one in flights_testing(session, branch, versions.that) if one != run.flight]
    others = _runs(session, same)
    runs = [others[flight] for flight in same]
    tests = {(job.name, step.testid) for one in (run, *runs) for job, step in one.steps()}
    seen = _seen(session, {run.flight, *same, *baseline}, tests)
    passed = {test: any(status == PASS for status in seen.get(test, {}).values()) for test in tests}
    unsure = {test for test, known in passed.items() if not known}
    for test in _ever_passed(session, branch, unsure):
        passed[test] = True
    return Past(
        same=tuple(runs), baseline=tuple(baseline), seen=seen, passed=passed,
        common=_common(session, [job.name for job in run.jobs], baseline) if baseline else None,
    )  # fmt: skip


def load_test_runs(
    session: Session, tests: Collection[Signature], *, now: Collection[int], before: Collection[int]
) -> dict[Signature, TestRuns]:
    """How often each test passed and failed in flights `now` and `before`, by class of hosts. Every attempt counts."""
    classes = _host_classes(session)
    counted = dict.fromkeys(before, "before") | dict.fromkeys(now, "now")
    counts: dict[tuple[Signature, str, str], Counts] = defaultdict(Counts)
    jobs, testids = {job for job, _ in tests}, {testid for _, testid in tests}
    for some in _chunks(sorted(counted)):
        query = (
            select(AttemptRow.flight, AttemptRow.job, StepRow.testid, StepRow.status, StepRow.host, AttemptHostRow.host)
            .join(StepRow, StepRow.attempt == AttemptRow.id)
            .outerjoin(AttemptHostRow, (AttemptHostRow.attempt == AttemptRow.id) & (AttemptHostRow.position == 0))
            .where(AttemptRow.flight.in_(some), AttemptRow.job.in_(jobs), StepRow.testid.in_(testids))
            .where(StepRow.status.in_((PASS, FAIL)))
        )
        for flight, job, testid, status, host, first_host in session.execute(query):
            one = Counts(fails=1) if status == FAIL else Counts(passes=1)
            key = ((job, testid), counted[flight], classes.get(host or first_host or "", ""))
            counts[key] += one
    found: dict[Signature, dict[str, dict[str, Counts]]] = {test: {"before": {}, "now": {}} for test in tests}
    for (test, when, where), one in counts.items():
        if test in found:
            found[test][when][where] = one
    return {test: TestRuns(before=both["before"], now=both["now"]) for test, both in found.items()}


def good_flights(session: Session, branch: str) -> list[int]:
    """The flights on which something of the branch was pushed, the newest first."""
    query = select(GateRunRow.flight).where(
        GateRunRow.branch == branch, GateRunRow.pushed, GateRunRow.flight.is_not(None)
    )
    return [one for one in session.scalars(query.order_by(GateRunRow.id.desc()).limit(MOST_FLIGHTS)) if one is not None]


def what_came_of(
    session: Session, flights: Collection[int], tests: Collection[Signature]
) -> dict[Signature, dict[int, str]]:
    """What came of each test in each flight, in the words of `Past.seen`; the newest attempt counts."""
    return _seen(session, flights, tests)


def _runs(session: Session, flights: Collection[int]) -> dict[int, FlightRun]:
    """Flights with the steps that did not pass; one that does not exist has no jobs."""
    newest = _newest_attempts(session, flights)
    bad: dict[int, list[StepRun]] = defaultdict(list)
    classes = _host_classes(session)
    for some in _chunks(sorted(newest.values())):
        query = (
            select(StepRow.attempt, StepRow.stepno, StepRow.testid, StepRow.status, StepRow.host)
            .where(StepRow.attempt.in_(some), StepRow.status.not_in(_GOOD))
            .order_by(StepRow.attempt, StepRow.stepno)
        )
        for attempt, stepno, testid, status, host in session.execute(query):
            step = StepRun(
                testid=testid, status=status, stepno=stepno, own=status == BLOCKED, host=classes.get(host or "", "")
            )
            bad[attempt].append(step)
    jobs: dict[int, list[JobRun]] = defaultdict(list)
    for some in _chunks(sorted(flights)):
        listed = select(JobRow.flight, JobRow.name, JobRow.recipe, JobRow.status).where(JobRow.flight.in_(some))
        for flight, name, recipe, status in session.execute(listed.order_by(JobRow.flight, JobRow.position)):
            steps = bad.get(newest.get((flight, name), 0), [])
            jobs[flight].append(JobRun(name=name, status=status, bad=tuple(steps), build=recipe == RECIPE))
    return {flight: FlightRun(flight=flight, jobs=tuple(jobs[flight])) for flight in flights}


def _newest_attempts(
    session: Session, flights: Iterable[int], jobs: Collection[str] | None = None
) -> dict[tuple[int, str], int]:
    """(flight, job) -> its newest attempt."""
    found: dict[tuple[int, str], int] = {}
    for some in _chunks(sorted(flights)):
        query = select(AttemptRow.flight, AttemptRow.job, AttemptRow.id).where(AttemptRow.flight.in_(some))
        if jobs is not None:
            query = query.where(AttemptRow.job.in_(jobs))
        for flight, job, attempt in session.execute(query.order_by(AttemptRow.number)):
            found[flight, job] = attempt
    return found


def _seen(session: Session, flights: Collection[int], tests: Collection[Signature]) -> dict[Signature, dict[int, str]]:
    """What came of each test in each flight, in the words of `Past.seen`."""
    if not tests:
        return {}
    by_job: dict[str, list[str]] = defaultdict(list)
    for job, testid in tests:
        by_job[job].append(testid)
    newest = _newest_attempts(session, flights, by_job)
    of_attempt = {attempt: key for key, attempt in newest.items()}
    seen: dict[Signature, dict[int, str]] = {test: {} for test in tests}
    testids = {testid for _, testid in tests}
    for some in _chunks(sorted(of_attempt)):
        query = select(StepRow.attempt, StepRow.testid, StepRow.status)
        query = query.where(StepRow.attempt.in_(some), StepRow.testid.in_(testids))
        for attempt, testid, status in session.execute(query):
            flight, job = of_attempt[attempt]
            if (job, testid) in seen:
                seen[job, testid][flight] = status
    for some in _chunks(sorted(flights)):
        query = select(JobRow.flight, JobRow.name, JobRow.status)
        query = query.where(JobRow.flight.in_(some), JobRow.name.in_(by_job))
        for flight, job, status in session.execute(query):
            word = _without_step(status)
            if word is None:
                continue
            for testid in by_job[job]:
                seen[job, testid].setdefault(flight, word)
    return seen


def _without_step(status: str) -> str | None:
    """What a job that ended so says of a step that it does not have; None: nothing (its recipe was another)."""
    if status == STARVED:
        return STARVED
    return BLOCKED if status in (FAIL, BROKEN, BLOCKED) else None


def _ever_passed(session: Session, branch: str, tests: Collection[Signature]) -> set[Signature]:
    """Which of the tests have passed in any flight of the branch that counts."""
    if not tests:
        return set()
    jobs, testids = {job for job, _ in tests}, {testid for _, testid in tests}
    query = (
        select(AttemptRow.job, StepRow.testid)
        .join(FlightRow, FlightRow.id == AttemptRow.flight)
        .join(StepRow, StepRow.attempt == AttemptRow.id)
        .where(AttemptRow.job.in_(jobs), StepRow.testid.in_(testids), StepRow.status == PASS)
        .where(FlightRow.branch == branch, FlightRow.blessing.in_(COUNTED))
        .distinct()
    )
    return {(job, testid) for job, testid in session.execute(query)} & set(tests)


def _common(session: Session, jobs: Collection[str], baseline: Collection[int]) -> int:
    """How many of the jobs are in any of these flights."""
    found: set[str] = set()
    for some in _chunks(sorted(baseline)):
        found |= set(
            session.scalars(select(JobRow.name).where(JobRow.flight.in_(some), JobRow.name.in_(jobs)).distinct())
        )
    return len(found)


def _host_classes(session: Session) -> dict[str, str]:
    rows = session.execute(select(HostRow.name, HostRow.arch, HostRow.flags))
    return {name: host_class(Host(name=name, arch=arch, flags=frozenset(flags))) for name, arch, flags in rows}


def _chunks(values: Iterable[int]) -> Iterator[list[int]]:
    """The values, as many at once as a query takes."""
    rest = iter(values)
    while some := list(islice(rest, _MOST_AT_ONCE)):
        yield some


def flights_before(session: Session, branch: str, flight: int) -> list[tuple[int, datetime, dict[str, str]]]:
    """(flight, started, revisions) of a branch's flights that count before this one, the newest 1,000."""
    query = select(FlightRow.id, FlightRow.started).where(
        FlightRow.branch == branch, FlightRow.blessing == Blessing.REAL.value, FlightRow.id < flight
    )
    rows = session.execute(query.order_by(FlightRow.id.desc()).limit(MOST_FLIGHTS)).all()
    revisions: dict[int, dict[str, str]] = defaultdict(dict)
    for some in _chunks(row.id for row in rows):
        listed = select(FlightRevisionRow).where(FlightRevisionRow.flight.in_(some))
        for one in session.scalars(listed):
            revisions[one.flight][one.tree] = one.revision
    return [(row.id, row.started, revisions[row.id]) for row in rows if row.id in revisions]
