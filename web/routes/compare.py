"""The page that holds two flights against each other; the same as JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from lab.db.flights import resolve_flight
from lab.db.history import classes_of
from lab.db.outlines import load_outline
from lab.flights.comparison import MUCH_LONGER, Comparison, compare, comparison_view
from web.deps import LabDep, PagesDep, SessionDep
from web.flight_views import flight_line
from web.times import job_url

MOST_DURATIONS = 40
router = APIRouter()

Name = Annotated[str, Query(pattern=r"^(latest|[0-9]{1,9})$")]


def _compared(session: Session, a: str, b: str) -> Comparison:
    first, second = (load_outline(session, resolve_flight(session, name)) for name in (a, b))
    return compare(first, second, classes_of(session))


@router.get("/compare", include_in_schema=False)
def choose(a: Name, b: Name) -> RedirectResponse:
    """From the form to the address that one passes on."""
    return RedirectResponse(f"/compare/{a}/{b}", status_code=303)


@router.get("/compare/{a}/{b}", response_class=HTMLResponse, include_in_schema=False)
def show_comparison(a: str, b: str, lab: LabDep, session: SessionDep, pages: PagesDep) -> HTMLResponse:
    """What differs between two flights, each a number or `latest`."""
    one = _compared(session, a, b)
    now = lab.clock()
    values = {
        "event": 0,
        "one": one,
        "lines": (flight_line(one.a, now), flight_line(one.b, now)),
        "alike": [each for each in one.durations if each.alike],
        "unlike": [each for each in one.durations if not each.alike],
        "most": MOST_DURATIONS,
        "much": MUCH_LONGER,
        "job_url": job_url,
    }
    return pages.render("compare/show.html", values)


@router.get("/api/v1/compare/{a}/{b}")
def api_comparison(a: str, b: str, session: SessionDep) -> dict[str, Any]:
    """What differs between two flights, each a number or `latest`."""
    return comparison_view(_compared(session, a, b))
