"""Rows of push gates: their runs, and what people have decided about them. `lab.db.board` has what pages show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from lab.db.board import LARGEST_ID, load_run
from lab.db.flights import add_event
from lab.db.session import matched, upsert
from lab.db.tables import FlightRevisionRow, GateOverrideRow, GateRunRow, RunvarRow
from lab.errors import NotFoundError
from lab.flights.board import GateRun
from lab.flights.gate import GateStep, Override


def add_run(session: Session, branch: str, *, verdict: Mapping[str, Any], now: datetime) -> int | None:
    """Begin a run of a branch's gate; returns its number, None when one is under way (somebody may be quicker)."""
    row = upsert(session, GateRunRow).values(
        branch=branch, started=now, finished=None, state=GateStep.FETCHING.value, old="", new="", flight=None,
        baseline_flight=None, verdict=dict(verdict), decision="", pushed=False, reason="",
    )  # fmt: skip
    number: int | None = session.scalar(row.on_conflict_do_nothing().returning(GateRunRow.id))
    if number is not None:
        _tell(session, number, branch, GateStep.FETCHING, now)
    return number


def open_runs(session: Session, branch: str | None = None) -> list[int]:
    """The runs that have not ended, the oldest first."""
    query = select(GateRunRow.id).where(GateRunRow.finished.is_(None)).order_by(GateRunRow.id)
    return list(session.scalars(query if branch is None else query.where(GateRunRow.branch == branch)))


def newest_run(session: Session, branch: str) -> int | None:
    """The run of a branch's gate that began last."""
    return session.scalar(select(func.max(GateRunRow.id)).where(GateRunRow.branch == branch))


def last_begun(session: Session, branch: str) -> datetime | None:
    """When a run of a branch's gate last began."""
    number = newest_run(session, branch)
    return None if number is None else session.scalar(select(GateRunRow.started).where(GateRunRow.id == number))


def move_run(
    session: Session, run: GateRun, to: GateStep, *, now: datetime, values: Mapping[str, Any] | None = None
) -> bool:
    """Take a run from the state in which it was read to the next; False when somebody else was quicker."""
    changes: dict[str, Any] = {**(values or {}), "state": to.value}
    if to.final:
        changes["finished"] = now
    moved = update(GateRunRow).where(
        GateRunRow.id == run.id, GateRunRow.state == run.state, GateRunRow.finished.is_(None)
    )
    if not matched(session, moved.values(**changes)):
        return False
    _tell(session, run.id, run.branch, to, now)
    return True


def _tell(session: Session, number: int, branch: str, state: GateStep, now: datetime) -> None:
    add_event(session, kind="gate", now=now, flight=None, data={"gate": number, "branch": branch, "state": state.value})


def run_before(session: Session, branch: str, number: int) -> GateRun | None:
    """The run of a branch's gate before this one."""
    before = session.scalar(select(func.max(GateRunRow.id)).where(GateRunRow.branch == branch, GateRunRow.id < number))
    return None if before is None else load_run(session, before)


def decided_before(session: Session, branch: str, number: int) -> GateRun | None:
    """The last run of a branch's gate before this one that decided about a flight."""
    before = session.scalar(
        select(func.max(GateRunRow.id)).where(
            GateRunRow.branch == branch, GateRunRow.id < number, GateRunRow.decision != "",
            GateRunRow.flight.is_not(None),
        )
    )  # fmt: skip
    return None if before is None else load_run(session, before)


def add_override(
    session: Session, branch: str, kind: str, *, actor: str, reason: str, now: datetime, expires: datetime | None,
    job: str = "", testid: str = "", revision: str = "",
) -> int:  # fmt: skip
    """Keep what a person decided; returns its number."""
    row = GateOverrideRow(
        branch=branch, kind=kind, job=job, testid=testid, revision=revision, actor=actor, reason=reason, created=now,
        expires=expires, ended=None, ended_by=None,
    )  # fmt: skip
    session.add(row)
    session.flush()
    add_event(session, kind="gate", now=now, flight=None, data={"branch": branch, "override": row.id, "kind": kind})
    return row.id


def end_override(session: Session, number: int, *, actor: str, now: datetime) -> str:
    """Take back what a person decided; returns its branch. `NotFoundError` when nothing of that number is in force."""
    row = session.get(GateOverrideRow, number) if 0 < number <= LARGEST_ID else None
    if row is None or row.ended is not None:
        raise NotFoundError(f"no override {number} is in force", hint="`lab gate status BRANCH` lists them")
    row.ended, row.ended_by = now, actor
    add_event(
        session, kind="gate", now=now, flight=None, data={"branch": row.branch, "override": number, "kind": "end"}
    )
    return row.branch


def overrides_in_force(session: Session, branch: str, now: datetime) -> list[Override]:
    """What people have decided about a branch's gate and is in force, the oldest first."""
    query = select(GateOverrideRow).where(
        GateOverrideRow.branch == branch,
        or_(GateOverrideRow.ended.is_(None), GateOverrideRow.ended > now),
        or_(GateOverrideRow.expires.is_(None), GateOverrideRow.expires > now),
    )
    return [
        Override(
            id=row.id, kind=row.kind, actor=row.actor, reason=row.reason, job=row.job, testid=row.testid,
            revision=row.revision, expires=row.expires,
        )
        for row in session.scalars(query.order_by(GateOverrideRow.id))
    ]  # fmt: skip


def save_revisions(session: Session, flight: int, revisions: Mapping[str, str]) -> None:
    """Keep which revision of each source tree a flight tests."""
    session.add_all(
        FlightRevisionRow(flight=flight, tree=tree, revision=revision) for tree, revision in revisions.items()
    )


def build_revision(session: Session, flight: int, job: str) -> tuple[str, str] | None:
    """(tree, revision) of a build job, as it was submitted; None when it names none."""
    query = select(RunvarRow.name, RunvarRow.value).where(
        RunvarRow.flight == flight, RunvarRow.job == job, RunvarRow.name.in_(("tree", "revision"))
    )
    found = {row.name: row.value for row in session.execute(query)}
    return (found.get("tree", "xen"), found["revision"]) if "revision" in found else None
