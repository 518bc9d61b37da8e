"""Queries on bisections and their probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, defer, selectinload

from lab.db.flights import add_event
from lab.db.session import matched
from lab.db.tables import BisectionProbeRow, BisectionRow, FlightRow, JobRow
from lab.errors import NotFoundError
from lab.flights.bisection import Policy
from lab.flights.bisection_runs import (
    Bisection,
    BisectionState,
    Hosts,
    MovingTree,
    ProbeRun,
    Result,
    histories_json,
    read_histories,
)
from lab.flights.model import JobSpec
from lab.flights.status import Blessing

LARGEST_ID = (1 << 31) - 1
"""What a number column of PostgreSQL holds."""


def _probe(row: BisectionProbeRow) -> ProbeRun:
    return ProbeRun(
        number=row.number,
        flight=row.flight,
        node=tuple(row.node),
        purpose=row.purpose,
        result=Result(row.result),
        reason=row.reason,
        started=row.started,
        finished=row.finished,
    )


def _bisection(row: BisectionRow, *, whole: bool) -> Bisection:
    options = dict(row.policy)
    hosts, revert = Hosts(options.pop("hosts")), bool(options.pop("revert"))
    trees = (MovingTree(name=one["name"], repository=one["repository"], builds=tuple(one["builds"])) for one in
             row.trees["trees"])  # fmt: skip
    return Bisection(
        id=row.id,
        branch=row.branch,
        job=row.job,
        testid=row.testid,
        state=BisectionState(row.state),
        template=tuple(JobSpec(**spec) for spec in row.template["jobs"]) if whole else (),
        trees=tuple(trees),
        histories=read_histories(row.histories["histories"]) if whole else (),
        policy=Policy(**options),
        hosts=hosts,
        revert=revert,
        basis_flight=row.basis_flight,
        failing_flight=row.failing_flight,
        actor=row.actor,
        reason=row.reason,
        conclusion=row.conclusion,
        started=row.started,
        finished=row.finished,
        turn=row.turn,
        probes=tuple(_probe(probe) for probe in row.probes),
    )


def add_bisection(session: Session, bisection: Bisection, *, now: datetime) -> int:
    """Insert a running bisection with the probes it begins with; returns its number.

    The index refuses (`IntegrityError`) a second one of the same branch, job and testid that runs.
    """
    row = BisectionRow(
        branch=bisection.branch,
        job=bisection.job,
        testid=bisection.testid,
        state=bisection.state.value,
        reason=bisection.reason,
        basis_flight=bisection.basis_flight,
        failing_flight=bisection.failing_flight,
        actor=bisection.actor,
        started=now,
        turn=0,
        policy={**asdict(bisection.policy), "hosts": bisection.hosts.value, "revert": bisection.revert},
        template={
            "jobs": [
                {"name": spec.name, "recipe": spec.recipe, "runvars": dict(spec.runvars)} for spec in bisection.template
            ]
        },
        trees={
            "trees": [
                {"name": one.name, "repository": one.repository, "builds": list(one.builds)} for one in bisection.trees
            ]
        },
        histories={"histories": histories_json(bisection.histories)},
        conclusion={},
        probes=[_probe_row(probe) for probe in bisection.probes],
    )
    session.add(row)
    session.flush()
    _tell(session, row.id, bisection.state, now)
    return row.id


def _probe_row(probe: ProbeRun) -> BisectionProbeRow:
    return BisectionProbeRow(
        number=probe.number,
        flight=probe.flight,
        node=list(probe.node),
        purpose=probe.purpose,
        result=probe.result.value,
        reason=probe.reason,
        started=probe.started,
        finished=probe.finished,
    )


def _tell(session: Session, number: int, state: BisectionState, now: datetime) -> None:
    add_event(session, kind="bisection", now=now, data={"bisection": number, "state": state.value})


def load_bisection(session: Session, number: int) -> Bisection:
    """A bisection with everything in it; `NotFoundError` when there is none of this number."""
    row = None
    if 0 < number <= LARGEST_ID:
        row = session.get(BisectionRow, number, options=[selectinload(BisectionRow.probes)])
    if row is None:
        raise NotFoundError(f"there is no bisection {number}", hint="`lab bisect list` shows them")
    return _bisection(row, whole=True)


def list_bisections(
    session: Session, *, branch: str = "", running: bool = False, before: int | None = None, limit: int = 50
) -> list[Bisection]:
    """The newest first, without their template and histories; `before` is a number (exclusive) to page on."""
    conditions: list[ColumnElement[bool]] = []
    if branch:
        conditions.append(BisectionRow.branch == branch)
    if running:
        conditions.append(BisectionRow.finished.is_(None))
    if before is not None:
        conditions.append(BisectionRow.id < before)
    query = select(BisectionRow).where(*conditions).order_by(BisectionRow.id.desc()).limit(limit)
    loads = (selectinload(BisectionRow.probes), defer(BisectionRow.template), defer(BisectionRow.histories))
    return [_bisection(row, whole=False) for row in session.scalars(query.options(*loads))]


def bisections_of(session: Session, *, branch: str, job: str, testid: str, limit: int = 10) -> list[Bisection]:
    """The newest bisections of a test, with everything in them."""
    query = (
        select(BisectionRow)
        .where(BisectionRow.branch == branch, BisectionRow.job == job, BisectionRow.testid == testid)
        .order_by(BisectionRow.id.desc())
        .limit(limit)
        .options(selectinload(BisectionRow.probes))
    )
    return [_bisection(row, whole=True) for row in session.scalars(query)]


def bisections_with(session: Session, flight: int) -> list[tuple[int, str]]:
    """(bisection, purpose) of those that made or used a flight, the oldest first."""
    query = select(BisectionProbeRow.bisection, BisectionProbeRow.purpose).where(BisectionProbeRow.flight == flight)
    return [(number, purpose) for number, purpose in session.execute(query.order_by(BisectionProbeRow.bisection))]


def running_bisections(session: Session) -> list[int]:
    """The numbers of those that have not ended, oldest first."""
    return list(
        session.scalars(select(BisectionRow.id).where(BisectionRow.finished.is_(None)).order_by(BisectionRow.id))
    )


def take_turn(session: Session, number: int, turn: int) -> bool:
    """Whether nobody has changed the bisection since its turn `turn`; then it is the caller's until the commit."""
    return matched(
        session,
        update(BisectionRow)
        .where(BisectionRow.id == number, BisectionRow.turn == turn, BisectionRow.finished.is_(None))
        .values(turn=turn + 1),
    )


def save_probes(session: Session, number: int, probes: Iterable[ProbeRun]) -> None:
    """Insert or update probes."""
    for probe in probes:
        row = _probe_row(probe)
        row.bisection = number
        session.merge(row)


def note_progress(session: Session, number: int, reason: str, *, now: datetime) -> None:
    """Say in a line what it does now."""
    session.execute(update(BisectionRow).where(BisectionRow.id == number).values(reason=reason))
    _tell(session, number, BisectionState.RUNNING, now)


def save_conclusion(session: Session, number: int, conclusion: Mapping[str, Any]) -> None:
    """Keep what was concluded, while it still runs or as it ends."""
    session.execute(update(BisectionRow).where(BisectionRow.id == number).values(conclusion=dict(conclusion)))


def end_bisection(session: Session, number: int, state: BisectionState, reason: str, *, now: datetime) -> bool:
    """End a bisection; False when it had ended."""
    ended = matched(
        session,
        update(BisectionRow)
        .where(BisectionRow.id == number, BisectionRow.finished.is_(None))
        .values(state=state.value, reason=reason, finished=now),
    )
    if ended:
        _tell(session, number, state, now)
    return ended


def earlier_runs(
    session: Session, *, branch: str, job: str, since: int, before: int = LARGEST_ID, limit: int = 200
) -> list[int]:
    """The newest ended flights of a branch that count and have the job, from `since` on (inclusive), oldest first."""
    counted = (Blessing.REAL.value, Blessing.REAL_BISECT.value, Blessing.REAL_RETEST.value)
    query = (
        select(FlightRow.id)
        .join(JobRow, JobRow.flight == FlightRow.id)
        .where(FlightRow.branch == branch, FlightRow.blessing.in_(counted), JobRow.name == job)
        .where(FlightRow.id >= since, FlightRow.id < before)
        .order_by(FlightRow.id.desc())
        .limit(limit)
    )
    return sorted(session.scalars(query))
