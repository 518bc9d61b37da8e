"""Pages on flights: the list, and a flight's grid of jobs and steps."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lab.db.bisections import bisections_with
from lab.db.board import run_of_flight
from lab.db.flights import flight_before, last_event, list_branches, list_flights, load_flight, resolve_flight
from lab.flights.coverage import coverage_of
from lab.services.flight_end import expected_ends
from lab.services.show_board import show_board
from web.deps import LabDep, PagesDep, RecipesDep, SessionDep
from web.flight_views import flight_line
from web.grid_views import grid
from web.routes.branches import MOST_BLOCKERS, gated

PAGE = 50
router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)


@router.get("/")
def show_flights(
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    branch: Annotated[str, Query(max_length=128)] = "",
    before: Annotated[int | None, Query(ge=1, lt=1 << 31)] = None,
    fragment: str | None = None,
) -> HTMLResponse:
    """How the branches with a gate stand, and the newest flights; those of one branch alone, if one is named."""
    event = last_event(session)
    flights = list_flights(session, branch=branch or None, before=before, limit=PAGE + 1)
    now = lab.clock()
    board = show_board(session, lab, gated(session, lab)) if not branch and before is None else []
    return pages.render(
        "flights/list.html",
        {
            "event": event,
            "lines": [flight_line(flight, now) for flight in flights[:PAGE]],
            "older": flights[PAGE - 1].id if len(flights) > PAGE else None,
            "branch": branch,
            "branches": list_branches(session),
            "before": before,
            "board": board,
            "most": MOST_BLOCKERS,
        },
        part="list",
        fragment=fragment,
    )


@router.get("/flights/{flight}")
def show_flight(
    flight: str,
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    recipes: RecipesDep,
    q: Annotated[str, Query(max_length=64)] = "",
    only: Annotated[str, Query(pattern="^(bad)?$")] = "",
    fragment: str | None = None,
) -> HTMLResponse:
    """A flight as a grid; `q` keeps the jobs with that in their name, `only=bad` those that did not pass."""
    event = last_event(session)
    loaded = load_flight(session, resolve_flight(session, flight), evidence=False)
    now = lab.clock()
    return pages.render(
        "flights/show.html",
        {
            "event": event,
            "flight": flight_line(loaded, now),
            "grid": grid(loaded, recipes, now, name=q, only_bad=only == "bad"),
            "end": expected_ends(session, lab, [loaded.id]).get(loaded.id) if loaded.finished is None else None,
            "gate": run_of_flight(session, loaded.id),
            "before": flight_before(session, loaded.id, loaded.branch),
            "coverage": coverage_of(loaded, lab.coverage),
            "bisections": bisections_with(session, loaded.id),
            "q": q,
            "only": only,
        },
        part="grid",
        fragment=fragment,
    )
