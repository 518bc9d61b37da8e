"""Show how the branches stand: what was let through, what is to come, and what stands between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import board, regressions
from lab.errors import LabError
from lab.flights.board import (
    BoardBlocker,
    BoardLine,
    GateRun,
    GateState,
    LastDecision,
    StandingOverride,
    gate_state,
    streak_start,
)
from lab.services.flight_end import expected_ends
from lab.vcs import Trees

LOOKED_AT: Final = 12
"""Blockers of a branch that are looked up in its past, at most; a branch with more has other troubles."""


def show_board(session: Session, lab: Lab, branches: Mapping[str, str]) -> list[BoardLine]:
    """A line for each of these branches (name -> the source tree that moves, if any), in their order."""
    if not branches:
        return []
    now = lab.clock()
    overrides = board.standing_overrides(session, now, list(branches))
    flights = board.flights_under_way(session, list(branches))
    ends = expected_ends(session, lab, [one.flight for one in flights.values()])
    bisections = board.running_bisections(session, list(branches))
    runs = board.last_runs(session, list(branches))
    lines = []
    for name, tree in branches.items():
        last = runs.get(name)
        newest, decided, pushed = (last.newest, last.decided, last.pushed) if last else (None, None, None)
        tested = (pushed.new if pushed else "") or (newest.old if newest else "")
        tip = newest.new if newest else ""
        going = flights.get(name)
        state = _state(newest, decided, overrides.get(name, []))
        lines.append(
            BoardLine(
                name=name,
                tree=tree,
                tested=tested,
                tested_at=pushed.finished if pushed else None,
                tip=tip,
                tip_at=newest.started if newest else None,
                distance=distance(lab.settings.home, tree, tested, tip),
                state=state,
                blockers=blockers_of(session, decided, now) if decided and state is not GateState.OPEN else (),
                under_way=replace(going, end=ends.get(going.flight)) if going else None,
                bisections=tuple(bisections.get(name, ())),
                decision=_decision(decided),
                overrides=tuple(overrides.get(name, ())),
            )
        )
    return lines


def _state(newest: GateRun | None, decided: GateRun | None, overrides: list[StandingOverride]) -> GateState:
    broken = newest is not None and newest.finished is not None and not newest.decision
    return gate_state(
        ran=newest is not None,
        decided=decided.decision if decided else None,
        broken=broken,
        stopped=any(one.kind == "hold" for one in overrides),
    )


def _decision(run: GateRun | None) -> LastDecision | None:
    if run is None:
        return None
    return LastDecision(
        gate=run.id,
        decision=run.decision,
        reason=run.reason,
        at=run.finished or run.started,
        flight=run.flight,
        pushed=run.pushed,
    )


def blockers_of(session: Session, run: GateRun, now: datetime) -> tuple[BoardBlocker, ...]:
    """The tests that hold what a run of a gate judged, and since when each fails."""
    blocking = [finding for finding in run.verdict.get("findings", ()) if finding.get("blocks")]
    tests = [(str(finding["job"]), str(finding.get("testid", ""))) for finding in blocking[:LOOKED_AT]]
    outcomes = board.outcomes_before(session, run.branch, run.flight, set(tests)) if run.flight and tests else {}
    owners = regressions.owners(session, run.branch, tests, now)
    return tuple(
        _blocker(finding, streak_start(outcomes.get(test, ())), owners.get(test, ""))
        for finding in blocking
        for test in [(str(finding["job"]), str(finding.get("testid", "")))]
    )


def _blocker(finding: Mapping[str, Any], since: Any, owner: str) -> BoardBlocker:
    flight, at, at_least = since or (None, None, False)
    return BoardBlocker(
        job=finding["job"],
        testid=finding.get("testid", ""),
        note=finding.get("note", ""),
        since=at,
        since_flight=flight,
        at_least=at_least,
        owner=owner,
    )


def distance(home: Path, tree: str, old: str, new: str) -> int | None:
    """How many commits `new` has that `old` has not; None when nobody can tell."""
    if not tree or not old or not new:
        return None
    try:
        return _distance(home, tree, old, new)
    except LabError:
        return None


@lru_cache(maxsize=1024)
def _distance(home: Path, tree: str, old: str, new: str) -> int:
    """Two commits never change, so that git is asked once."""
    return Trees(home).distance(tree, old, new)
