"""The regressions of the gated branches, and the life of one; the same as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse

from lab.db import regressions
from lab.db.flights import last_event
from lab.flights.regression_life import Life
from lab.flights.regression_views import regression_view, told_view
from lab.services.regression_life import tell_regression
from web.deps import LabDep, PagesDep, SessionDep
from web.times import job_url

router = APIRouter()

PAGE: Final = 100
SIGNS: Final = {
    Life.NEW: "fail", Life.CONFIRMED: "fail", Life.BISECTING: "running", Life.BLAMED: "broken", Life.FIXED: "pass",
    Life.VERIFIED: "pass",
}  # fmt: skip
Number = Annotated[int, Path(ge=1, lt=1 << 31)]
Before = Annotated[int | None, Query(ge=1, lt=1 << 31)]
Branch = Annotated[str, Query(max_length=64)]


def _lives(*, everything: bool) -> list[Life]:
    return [] if everything else [life for life in Life if life.open]


@router.get("/regressions", response_class=HTMLResponse, include_in_schema=False)
def show_regressions(
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    branch: Branch = "",
    before: Before = None,
    *,
    everything: Annotated[bool, Query(alias="all")] = False,
    fragment: str | None = None,
) -> HTMLResponse:
    """The open ones, or all."""
    event = last_event(session)
    found = regressions.list_regressions(
        session, branch=branch, lives=_lives(everything=everything), before=before, limit=PAGE + 1
    )
    values = {
        "event": event,
        "found": found[:PAGE],
        "older": found[PAGE - 1].id if len(found) > PAGE else None,
        "branch": branch,
        "everything": everything,
        "signs": SIGNS,
        "issues": regressions.known_issues(session, lab.clock()),
    }
    return pages.render("regressions/list.html", values, part="list", fragment=fragment)


@router.get("/regressions/{number}", response_class=HTMLResponse, include_in_schema=False)
def show_regression(
    number: Number, lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None
) -> HTMLResponse:
    """What failed, since when, whose it is, and all that has happened."""
    event = last_event(session)
    told = tell_regression(session, lab, number)
    values = {"event": event, "told": told, "one": told.regression, "signs": SIGNS, "job_url": job_url}
    return pages.render("regressions/show.html", values, part="regression", fragment=fragment)


@router.get("/api/v1/regressions")
def api_regressions(
    session: SessionDep, branch: Branch = "", before: Before = None, *,
    everything: Annotated[bool, Query(alias="all")] = False,
) -> dict[str, Any]:  # fmt: skip
    """The open regressions (or `all`), the newest first."""
    found = regressions.list_regressions(
        session, branch=branch, lives=_lives(everything=everything), before=before, limit=PAGE
    )
    return {
        "regressions": [regression_view(one) for one in found],
        "before": found[-1].id if len(found) == PAGE else None,
    }


@router.get("/api/v1/regressions/{number}")
def api_regression(number: Number, lab: LabDep, session: SessionDep) -> dict[str, Any]:
    """A regression with its whole life."""
    return told_view(tell_regression(session, lab, number), lab.clock())
