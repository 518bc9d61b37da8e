"""The release manager's pages: how the branches stand, one branch, one run of its gate; badges; the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import board
from lab.db.flights import last_event
from lab.errors import NotFoundError
from lab.flights.board import BoardLine, board_view, override_view, run_view
from lab.services.show_board import show_board
from web.badges import badge
from web.deps import LabDep, PagesDep, SessionDep
from web.gate_views import STATE_WORDS, counterfactual, decision_sign, sections
from web.times import job_url

MOST_BLOCKERS = 5
"""Blockers of a branch on the board."""
RUNS = 30
"""Runs of a gate on a branch's page."""
BADGE_S = 60
"""For how long others may keep a badge, in seconds."""
router = APIRouter()

Before = Annotated[int | None, Query(ge=1, lt=1 << 31)]


def gated(session: Session, lab: Lab) -> Mapping[str, str]:
    """The branches with a gate and the source tree each moves: the lab's file's, then those that once had one."""
    declared = {name: branch.tree for name, branch in lab.branches.items()}
    return {**declared, **{name: "" for name in board.gated_branches(session) if name not in declared}}


def line_of(session: Session, lab: Lab, name: str) -> BoardLine:
    """How one branch stands; `NotFoundError` when it has no gate."""
    branches = gated(session, lab)
    if name not in branches:
        raise NotFoundError(f"no branch {name!r} has a gate", hint="/branches shows those that have")
    return show_board(session, lab, {name: branches[name]})[0]


@router.get("/branches", response_class=HTMLResponse, include_in_schema=False)
def show_branches(lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None) -> HTMLResponse:
    """Every branch with a gate."""
    event = last_event(session)
    values = {"event": event, "board": show_board(session, lab, gated(session, lab)), "most": MOST_BLOCKERS}
    return pages.render("branches/list.html", values, part="board", fragment=fragment)


@router.get("/branches/{name}", response_class=HTMLResponse, include_in_schema=False)
def show_branch(
    name: str, lab: LabDep, session: SessionDep, pages: PagesDep, before: Before = None, fragment: str | None = None
) -> HTMLResponse:
    """One branch: what blocks it, the runs of its gate, and what people decided about it."""
    event = last_event(session)
    line = line_of(session, lab, name)
    runs = board.list_runs(session, name, before=before, limit=RUNS + 1)
    tests = [(one.job, one.testid) for one in line.blockers]
    values = {
        "event": event,
        "line": line,
        "runs": [(run, decision_sign(run)) for run in runs[:RUNS]],
        "older": runs[RUNS - 1].id if len(runs) > RUNS else None,
        "before": before,
        "overrides": board.list_overrides(session, name),
        "bisections": board.bisections_of_tests(session, name, tests),
        "most": len(line.blockers),
    }
    return pages.render("branches/show.html", values, part="branch", fragment=fragment)


@router.get("/gates/{number}", response_class=HTMLResponse, include_in_schema=False)
def show_gate(
    number: int, lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None
) -> HTMLResponse:
    """One run of a gate: each finding with its reasons, and what would have let it pass."""
    event = last_event(session)
    run = board.load_run(session, number)
    shown = sections(run)
    values = {
        "event": event,
        "run": run,
        "sign": decision_sign(run),
        "sections": shown,
        "counterfactual": counterfactual(shown),
        "overrides": board.standing_overrides(session, run.finished or lab.clock(), [run.branch]).get(run.branch, []),
        "job_url": job_url,
    }
    return pages.render("gates/show.html", values, part="gate", fragment=fragment)


@router.get("/badge/{name}.svg", include_in_schema=False)
def show_badge(name: str, request: Request, lab: LabDep, session: SessionDep) -> Response:
    """How a branch's gate stands, as a picture."""
    try:
        state = line_of(session, lab, name).state
    except NotFoundError:
        return _badge(request, name, "unknown", "unknown", status=404)
    return _badge(request, name, STATE_WORDS[state], state.value)


@router.get("/badge/{name}/tested.svg", include_in_schema=False)
def show_tested_badge(name: str, request: Request, lab: LabDep, session: SessionDep) -> Response:
    """What of a branch was let through last, as a picture."""
    try:
        tested = line_of(session, lab, name).tested
    except NotFoundError:
        return _badge(request, name, "unknown", "unknown", status=404)
    return _badge(request, f"{name} tested", tested[:12] or "nothing", "tested" if tested else "untested")


def _badge(request: Request, label: str, value: str, kind: str, *, status: int = 200) -> Response:
    body = badge(label, value, kind).encode()
    headers = {
        "ETag": f'"{sha256(body).hexdigest()[:32]}"',
        "Cache-Control": f"public, max-age={BADGE_S}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",  # it is there to be shown elsewhere
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="image/svg+xml", headers=headers, status_code=status)


@router.get("/api/v1/branches")
def api_branches(lab: LabDep, session: SessionDep) -> dict[str, Any]:
    """How every branch with a gate stands."""
    return {"branches": [board_view(line) for line in show_board(session, lab, gated(session, lab))]}


@router.get("/api/v1/branches/{name}")
def api_branch(name: str, lab: LabDep, session: SessionDep, before: Before = None) -> dict[str, Any]:
    """How a branch stands, with the runs of its gate and what people decided about it."""
    line = line_of(session, lab, name)
    runs = board.list_runs(session, name, before=before, limit=RUNS)
    return {
        **board_view(line),
        "runs": [run_view(run) for run in runs],
        "before": runs[-1].id if len(runs) == RUNS else None,
        "all_overrides": [override_view(one) for one in board.list_overrides(session, name)],
    }


@router.get("/api/v1/gates/{number}")
def api_gate(number: int, session: SessionDep) -> dict[str, Any]:
    """A run of a gate with its verdict, and what would have to be waived for it to pass."""
    run = board.load_run(session, number)
    would = [{"job": one.job, "testid": one.testid} for one in counterfactual(sections(run))]
    return {**run_view(run), "verdict": dict(run.verdict), "would_pass_without": would}
