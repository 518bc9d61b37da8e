"""Pages on bisections: the list, and one with its range, its runs and whom it blames; the same as JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lab.db.bisections import list_bisections, load_bisection
from lab.db.flights import last_event
from lab.flights.bisection_runs import belief_of
from lab.flights.bisection_views import bisection_summary, bisection_view, blamed, runs_left, seconds_left
from web.bisection_views import RESULT_SIGNS, bisection_line, range_picture
from web.deps import LabDep, PagesDep, SessionDep

PAGE = 50
router = APIRouter()

Before = Annotated[int | None, Query(ge=1, lt=1 << 31)]


@router.get("/bisections", response_class=HTMLResponse, include_in_schema=False)
def show_bisections(
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    branch: Annotated[str, Query(max_length=128)] = "",
    before: Before = None,
    fragment: str | None = None,
) -> HTMLResponse:
    """The newest bisections, of one branch or of all."""
    event = last_event(session)
    found = list_bisections(session, branch=branch, before=before, limit=PAGE + 1)
    now = lab.clock()
    values = {
        "event": event,
        "lines": [bisection_line(one, now) for one in found[:PAGE]],
        "older": found[PAGE - 1].id if len(found) > PAGE else None,
        "branch": branch,
        "before": before,
    }
    return pages.render("bisections/list.html", values, part="list", fragment=fragment)


@router.get("/bisections/{number}", response_class=HTMLResponse, include_in_schema=False)
def show_bisection(
    number: int, lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None
) -> HTMLResponse:
    """A bisection: its range as a picture, its runs, and what came of it."""
    event = last_event(session)
    bisection = load_bisection(session, number)
    belief = belief_of(bisection)
    left = runs_left(bisection, belief)
    values = {
        "event": event,
        "line": bisection_line(bisection, lab.clock()),
        "bisection": bisection,
        "picture": range_picture(bisection),
        "blamed": blamed(bisection),
        "older": belief.older.weight,
        "fluke": belief.fluke.weight,
        "signs": RESULT_SIGNS,
        "left": left,
        "left_s": seconds_left(bisection, left),
    }
    return pages.render("bisections/show.html", values, part="bisection", fragment=fragment)


@router.get("/api/v1/bisections")
def api_bisections(
    session: SessionDep,
    branch: Annotated[str, Query(max_length=128)] = "",
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The newest bisections."""
    found = list_bisections(session, branch=branch, before=before, limit=limit)
    return {"bisections": [bisection_summary(one) for one in found]}


@router.get("/api/v1/bisections/{number}")
def api_bisection(number: int, session: SessionDep) -> dict[str, Any]:
    """A bisection with its runs and whom it suspects."""
    return bisection_view(load_bisection(session, number))
