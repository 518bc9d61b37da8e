"""Queries on how the branches' gates stand: for each branch a few rows, each found by an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import Session

from lab.db.tables import (
    AttemptRow,
    BisectionRow,
    FlightRow,
    GateOverrideRow,
    GateRunRow,
    JobRow,
    StepRow,
)
from lab.errors import NotFoundError
from lab.flights.board import BoardBisection, GateRun, StandingOverride, UnderWay
from lab.flights.status import Blessing, JobStatus

LARGEST_ID = (1 << 31) - 1
"""What a number column of PostgreSQL holds."""

_RUN = (
    GateRunRow.id,
    GateRunRow.branch,
    GateRunRow.started,
    GateRunRow.finished,
    GateRunRow.state,
    GateRunRow.old,
    GateRunRow.new,
    GateRunRow.flight,
    GateRunRow.baseline_flight,
    GateRunRow.decision,
    GateRunRow.pushed,
    GateRunRow.reason,
)


def _run(row: Any, verdict: dict[str, Any] | None = None) -> GateRun:
    return GateRun(
        id=row.id,
        branch=row.branch,
        started=row.started,
        finished=row.finished,
        state=row.state,
        old=row.old,
        new=row.new,
        flight=row.flight,
        baseline_flight=row.baseline_flight,
        decision=row.decision,
        pushed=row.pushed,
        reason=row.reason,
        verdict=verdict or {},
    )


def gated_branches(session: Session) -> list[str]:
    """The branches whose gate ever ran, by name."""
    return list(session.scalars(select(GateRunRow.branch).distinct().order_by(GateRunRow.branch)))


@dataclass(frozen=True, kw_only=True)
class LastRuns:
    """Of a branch's gate: the run that began last, the last one that decided (with its verdict), that pushed."""

    newest: GateRun
    decided: GateRun | None = None
    pushed: GateRun | None = None


def last_runs(session: Session, branches: Collection[str]) -> dict[str, LastRuns]:
    """The last runs of the gates of these branches; one whose gate never ran is left out."""
    newest, decided, pushed = (
        _last(session, branches, which) for which in (true(), GateRunRow.decision != "", GateRunRow.pushed.is_(True))
    )
    rows = {
        row.id: row
        for row in session.execute(select(*_RUN).where(GateRunRow.id.in_({*newest.values(), *pushed.values()})))
    }
    told = select(*_RUN, GateRunRow.verdict).where(GateRunRow.id.in_(list(decided.values())))
    judged = {row.branch: _run(row, row.verdict) for row in session.execute(told)}
    return {
        branch: LastRuns(
            newest=_run(rows[number]),
            decided=judged.get(branch),
            pushed=_run(rows[pushed[branch]]) if branch in pushed else None,
        )
        for branch, number in newest.items()
    }


def _last(session: Session, branches: Collection[str], which: ColumnElement[bool]) -> dict[str, int]:
    """The newest run of each branch that is one of `which`, from an index that has all it takes."""
    query = select(GateRunRow.branch, func.max(GateRunRow.id)).where(GateRunRow.branch.in_(branches), which)
    return {row[0]: row[1] for row in session.execute(query.group_by(GateRunRow.branch))}


def load_run(session: Session, number: int) -> GateRun:
    """A run of a gate with its verdict; `NotFoundError` when there is none of this number."""
    query = select(*_RUN, GateRunRow.verdict).where(GateRunRow.id == number)
    row = session.execute(query).first() if 0 < number <= LARGEST_ID else None
    if row is None:
        raise NotFoundError(f"there is no gate run {number}", hint="/branches shows the branches and their runs")
    return _run(row, row.verdict)


def list_runs(session: Session, branch: str, *, before: int | None = None, limit: int = 30) -> list[GateRun]:
    """The runs of a branch's gate, newest first, without their verdicts; `before` is a number (exclusive)."""
    query = select(*_RUN).where(GateRunRow.branch == branch).order_by(GateRunRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(GateRunRow.id < before)
    return [_run(row) for row in session.execute(query)]


def run_of_flight(session: Session, flight: int) -> int | None:
    """The run of a gate that judged a flight."""
    return session.scalar(select(func.max(GateRunRow.id)).where(GateRunRow.flight == flight))


def _override(row: GateOverrideRow) -> StandingOverride:
    what = " ".join(part for part in (row.job, row.testid, row.revision[:12]) if part)
    return StandingOverride(
        number=row.id,
        branch=row.branch,
        kind=row.kind,
        what=what,
        actor=row.actor,
        reason=row.reason,
        created=row.created,
        expires=row.expires,
        ended=row.ended,
        ended_by=row.ended_by or "",
    )


def standing_overrides(session: Session, now: datetime, branches: Collection[str]) -> dict[str, list[StandingOverride]]:
    """What people decided about gates and is in force at `now`, by branch, the newest first."""
    found: dict[str, list[StandingOverride]] = defaultdict(list)
    query = select(GateOverrideRow).where(
        GateOverrideRow.branch.in_(branches),
        GateOverrideRow.created <= now,
        or_(GateOverrideRow.ended.is_(None), GateOverrideRow.ended > now),
        or_(GateOverrideRow.expires.is_(None), GateOverrideRow.expires > now),
    )
    for row in session.scalars(query.order_by(GateOverrideRow.id.desc())):
        found[row.branch].append(_override(row))
    return found


def list_overrides(session: Session, branch: str, *, limit: int = 50) -> list[StandingOverride]:
    """What people decided about a branch's gate, in force or not, the newest first."""
    query = select(GateOverrideRow).where(GateOverrideRow.branch == branch)
    return [_override(row) for row in session.scalars(query.order_by(GateOverrideRow.id.desc()).limit(limit))]


def outcomes_before(
    session: Session, branch: str, flight: int, tests: Collection[tuple[str, str]], *, flights: int = 40
) -> dict[tuple[str, str], list[tuple[int, datetime, str]]]:
    """How (job, testid) went in the newest flights of a branch that count, up to `flight`: (flight, when, status).

    The newest first; of a job that was tried again the newest attempt counts. An empty testid: the job itself.
    """
    counted = (Blessing.REAL.value, Blessing.RUNNING.value)
    query = select(FlightRow.id).where(
        FlightRow.branch == branch, FlightRow.blessing.in_(counted), FlightRow.id <= flight
    )
    numbers = list(session.scalars(query.order_by(FlightRow.id.desc()).limit(flights)))
    jobs = {job for job, _ in tests}
    attempts: dict[int, tuple[int, str, datetime, str]] = {}
    newest: dict[tuple[int, str], int] = {}
    columns = (AttemptRow.id, AttemptRow.flight, AttemptRow.job, AttemptRow.started, AttemptRow.status)
    chosen = (
        select(*columns).where(AttemptRow.flight.in_(numbers), AttemptRow.job.in_(jobs)).order_by(AttemptRow.number)
    )
    for attempt, number, job, started, status in session.execute(chosen):
        newest[number, job] = attempt
        attempts[attempt] = number, job, started, status
    kept = set(newest.values())
    found: dict[tuple[str, str], list[tuple[int, datetime, str]]] = defaultdict(list)
    for attempt in kept:
        number, job, started, status = attempts[attempt]
        if (job, "") in tests:
            found[job, ""].append((number, started, status))
    steps = select(StepRow.attempt, StepRow.testid, StepRow.started, StepRow.status)
    wanted = {testid for _, testid in tests if testid}
    for attempt, testid, started, status in session.execute(
        steps.where(StepRow.attempt.in_(kept), StepRow.testid.in_(wanted))
    ):
        number, job, _, _ = attempts[attempt]
        if (job, testid) in tests:
            found[job, testid].append((number, started, status))
    return {test: sorted(outcomes, reverse=True) for test, outcomes in found.items()}


def flights_under_way(session: Session, branches: Collection[str]) -> dict[str, UnderWay]:
    """The newest flight of each branch that has not ended; how many of its jobs have."""
    query = select(FlightRow.id, FlightRow.branch, FlightRow.intended, FlightRow.started).where(
        FlightRow.finished.is_(None), FlightRow.branch.in_(branches)
    )
    rows = {row.branch: row for row in session.execute(query.order_by(FlightRow.id))}
    counted = (
        select(JobRow.flight, JobRow.status, func.count())
        .where(JobRow.flight.in_([row.id for row in rows.values()]))
        .group_by(JobRow.flight, JobRow.status)
    )
    done: dict[int, int] = defaultdict(int)
    total: dict[int, int] = defaultdict(int)
    for flight, status, count in session.execute(counted) if rows else ():
        total[flight] += count
        done[flight] += count if JobStatus(status).final else 0
    return {
        branch: UnderWay(
            flight=row.id,
            what="" if row.intended == Blessing.REAL.value else row.intended,
            started=row.started,
            done=done[row.id],
            total=total[row.id],
            end=None,
        )
        for branch, row in rows.items()
    }


def running_bisections(session: Session, branches: Collection[str]) -> dict[str, list[BoardBisection]]:
    """The bisections of each branch that have not ended, the newest first."""
    found: dict[str, list[BoardBisection]] = defaultdict(list)
    columns = (BisectionRow.id, BisectionRow.branch, BisectionRow.job, BisectionRow.testid, BisectionRow.state)
    query = select(*columns).where(BisectionRow.finished.is_(None), BisectionRow.branch.in_(branches))
    for number, branch, job, testid, state in session.execute(query.order_by(BisectionRow.id.desc())):
        found[branch].append(BoardBisection(number=number, job=job, testid=testid, state=state))
    return found


def bisections_of_tests(
    session: Session, branch: str, tests: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], BoardBisection]:
    """The newest bisection of each of these tests of a branch."""
    found = {}
    columns = (BisectionRow.id, BisectionRow.job, BisectionRow.testid, BisectionRow.state)
    query = select(*columns).where(BisectionRow.branch == branch, BisectionRow.job.in_({job for job, _ in tests}))
    for number, job, testid, state in session.execute(query.order_by(BisectionRow.id)):
        if (job, testid) in tests:
            found[job, testid] = BoardBisection(number=number, job=job, testid=testid, state=state)
    return found
