"""How the branches stand, for whoever lets them pass: one line each, made of what is known of a branch. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from lab.flights.model import Window
from lab.flights.views import window_view


class GateState(enum.Enum):
    """How a branch's gate stands."""

    #: what was tested last was let through, or there is nothing new
    OPEN = "open"
    #: what was tested last may not pass
    HELD = "held"
    #: a person keeps it shut, whatever the tests say
    STOPPED = "stopped"
    #: the first run of the gate has not decided yet
    TESTING = "testing"
    #: the last run could not decide, or could not push
    BROKEN = "broken"
    #: it never ran
    UNTESTED = "untested"


@dataclass(frozen=True, kw_only=True)
class BoardBlocker:
    """A test that holds a branch: since which flight it fails without a pass, and who sees to it.

    `since` is None when nobody can tell, `at_least`: it may be older, nobody looked further back.
    """

    job: str
    testid: str
    note: str
    since: datetime | None = None
    since_flight: int | None = None
    at_least: bool = False
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class GateRun:
    """One run of a gate: from revision `old` to `new`; `verdict` as it was written down, if it was asked for."""

    id: int
    branch: str
    started: datetime
    finished: datetime | None
    state: str
    old: str
    new: str
    flight: int | None
    baseline_flight: int | None
    decision: str
    pushed: bool
    reason: str
    verdict: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class LastDecision:
    """What a run of the gate decided, and whether it pushed."""

    gate: int
    decision: str
    reason: str
    at: datetime
    flight: int | None
    pushed: bool


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A flight of the branch that has not ended; `end` is None when nobody knows."""

    flight: int
    what: str
    started: datetime
    done: int
    total: int
    end: Window | None


@dataclass(frozen=True, kw_only=True)
class BoardBisection:
    """A bisection of a test of the branch."""

    number: int
    job: str
    testid: str
    state: str


@dataclass(frozen=True, kw_only=True)
class StandingOverride:
    """Something a person has decided about a gate: hold, waive or force."""

    number: int
    branch: str
    kind: str
    what: str
    actor: str
    reason: str
    created: datetime
    expires: datetime | None
    ended: datetime | None = None
    ended_by: str = ""


@dataclass(frozen=True, kw_only=True)
class BoardLine:
    """A branch: what was tested and let through, what is to come, and what stands between them.

    `distance`: commits of the tip that were not let through; None when nobody can tell.
    """

    name: str
    tree: str
    tested: str
    tested_at: datetime | None
    tip: str
    tip_at: datetime | None
    distance: int | None
    state: GateState
    blockers: tuple[BoardBlocker, ...]
    under_way: UnderWay | None
    bisections: tuple[BoardBisection, ...]
    decision: LastDecision | None
    overrides: tuple[StandingOverride, ...]


def gate_state(*, ran: bool, decided: str | None, broken: bool, stopped: bool) -> GateState:
    """How a gate stands, from its last run that ended: what it `decided` (advance | hold), or that it was broken.

    `ran`: a run was begun at any time; `stopped`: a person's hold is in force.
    """
    if stopped:
        return GateState.STOPPED
    if broken:
        return GateState.BROKEN
    match decided:
        case "advance":
            return GateState.OPEN
        case "hold":
            return GateState.HELD
        case _:
            return GateState.TESTING if ran else GateState.UNTESTED


def streak_start(outcomes: Sequence[tuple[int, datetime, str]]) -> tuple[int, datetime, bool] | None:
    """Since when a test does not pass: (flight, when, whether no pass was seen before) of its oldest run after a pass.

    `outcomes`: (flight, when, status), the newest first. None when the newest passed or there is none. A run that
    tells nothing (skipped, blocked, aborted) neither ends a streak nor begins one.
    """
    found: tuple[int, datetime] | None = None
    for flight, at, status in outcomes:
        if status == "pass":
            return (*found, False) if found else None
        if status in ("fail", "broken"):
            found = flight, at
    return (*found, True) if found else None


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None


def board_view(line: BoardLine) -> dict[str, Any]:
    """A branch as plain data."""
    return {
        "branch": line.name,
        "tree": line.tree,
        "state": line.state.value,
        "tested": line.tested or None,
        "tested_at": _time(line.tested_at),
        "tip": line.tip or None,
        "tip_at": _time(line.tip_at),
        "distance": line.distance,
        "blockers": [
            {
                "job": one.job,
                "testid": one.testid,
                "note": one.note,
                "since": _time(one.since),
                "since_flight": one.since_flight,
                "at_least": one.at_least,
                "owner": one.owner,
            }
            for one in line.blockers
        ],
        "under_way": _under_way_view(line.under_way),
        "bisections": [
            {"bisection": one.number, "job": one.job, "testid": one.testid, "state": one.state}
            for one in line.bisections
        ],
        "decision": _decision_view(line.decision),
        "overrides": [override_view(one) for one in line.overrides],
    }


def override_view(one: StandingOverride) -> dict[str, Any]:
    """What a person decided about a gate, as plain data."""
    return {
        "override": one.number,
        "kind": one.kind,
        "what": one.what,
        "actor": one.actor,
        "reason": one.reason,
        "created": _time(one.created),
        "expires": _time(one.expires),
        "ended": _time(one.ended),
        "ended_by": one.ended_by or None,
    }


def run_view(run: GateRun) -> dict[str, Any]:
    """A run of a gate as plain data, without its verdict."""
    return {
        "gate": run.id,
        "branch": run.branch,
        "started": _time(run.started),
        "finished": _time(run.finished),
        "state": run.state,
        "old": run.old or None,
        "new": run.new or None,
        "flight": run.flight,
        "baseline_flight": run.baseline_flight,
        "decision": run.decision or None,
        "pushed": run.pushed,
        "reason": run.reason,
    }


def _under_way_view(one: UnderWay | None) -> Mapping[str, Any] | None:
    if one is None:
        return None
    return {
        "flight": one.flight,
        "what": one.what,
        "started": _time(one.started),
        "done": one.done,
        "total": one.total,
        "end": window_view(one.end),
    }


def _decision_view(one: LastDecision | None) -> Mapping[str, Any] | None:
    if one is None:
        return None
    return {
        "gate": one.gate,
        "decision": one.decision,
        "reason": one.reason,
        "at": _time(one.at),
        "flight": one.flight,
        "pushed": one.pushed,
    }
