"""Pages on how jobs and their tests went over hosts and time; the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from lab.db.flights import list_branches
from lab.db.history import classes_of, list_jobs, revisions_of, runs_of_job, runs_of_test, tests_of
from lab.flights.history import Run, by_class, class_view, rate_of, rate_view, run_view
from web.deps import PagesDep, SessionDep
from web.history_views import bar, duration_chart, heat_map, reasons

COLUMNS = 40
"""Flights side by side."""
RUNS = 300
"""Runs that count for rates and durations."""
router = APIRouter()

Branch = Annotated[str, Query(max_length=128)]
Before = Annotated[int | None, Query(ge=1, lt=1 << 31)]


@router.get("/history", response_class=HTMLResponse, include_in_schema=False)
def show_histories(session: SessionDep, pages: PagesDep, q: Annotated[str, Query(max_length=64)] = "") -> HTMLResponse:
    """The jobs that were ever run; `q` keeps those with that in their name."""
    jobs = list_jobs(session)
    shown = [one for one in jobs if q.lower() in one.job.lower()]
    return pages.render("history/list.html", {"event": 0, "jobs": shown, "total": len(jobs), "q": q})


@router.get("/history/{job}", response_class=HTMLResponse, include_in_schema=False)
def show_job_history(
    job: str, session: SessionDep, pages: PagesDep, branch: Branch = "", before: Before = None
) -> HTMLResponse:
    """A job's attempts, by host and flight."""
    return _show(session, pages, job, "", branch=branch, before=before)


@router.get("/history/{job}/{testid:path}", response_class=HTMLResponse, include_in_schema=False)
def show_test_history(
    job: str, testid: str, session: SessionDep, pages: PagesDep, branch: Branch = "", before: Before = None
) -> HTMLResponse:
    """The runs of one test of a job, by host and flight."""
    return _show(session, pages, job, testid, branch=branch, before=before)


def _runs(session: Session, job: str, testid: str, branch: str, before: int | None) -> list[Run]:
    if testid:
        return runs_of_test(session, job, testid, branch=branch, before=before, limit=RUNS)
    return runs_of_job(session, job, branch=branch, before=before, limit=RUNS)


def _page_of(runs: Sequence[Run]) -> tuple[list[int], int | None]:
    """The flights to show, and the one before which the next page begins."""
    flights = list(dict.fromkeys(run.flight for run in runs))
    return flights[:COLUMNS], flights[COLUMNS - 1] if len(flights) > COLUMNS else None


def _show(session: Session, pages: PagesDep, job: str, testid: str, *, branch: str, before: int | None) -> HTMLResponse:
    runs = _runs(session, job, testid, branch, before)
    flights, older = _page_of(runs)
    kept = set(flights)
    shown = [run for run in runs if run.flight in kept]
    classes = classes_of(session)
    tests = {} if testid else tests_of(session, job, flights)
    values = {
        "event": 0,
        "job": job,
        "testid": testid,
        "branch": branch,
        "branches": list_branches(session),
        "before": before,
        "older": older,
        "heat": heat_map(shown, classes, revisions_of(session, flights)),
        "rate": rate_of(run.status for run in runs),
        "classes": by_class(runs, classes),
        "chart": duration_chart(runs),
        "reasons": reasons(shown),
        "tests": {name: bar(counts) for name, counts in tests.items()},
        "runs": len(runs),
    }
    return pages.render("history/show.html", values)


@router.get("/api/v1/history/{job}")
def api_job_history(job: str, session: SessionDep, branch: Branch = "", before: Before = None) -> dict[str, Any]:
    """A job's attempts, the newest flight first, and how often it passed on each class of hosts."""
    return _view(session, job, "", branch, before)


@router.get("/api/v1/history/{job}/{testid:path}")
def api_test_history(
    job: str, testid: str, session: SessionDep, branch: Branch = "", before: Before = None
) -> dict[str, Any]:
    """The runs of one test of a job, and how often it passed on each class of hosts."""
    return _view(session, job, testid, branch, before)


def _view(session: Session, job: str, testid: str, branch: str, before: int | None) -> dict[str, Any]:
    runs = _runs(session, job, testid, branch, before)
    return {
        "job": job,
        "testid": testid,
        "branch": branch,
        "rate": rate_view(rate_of(run.status for run in runs)),
        "classes": [class_view(one) for one in by_class(runs, classes_of(session))],
        "runs": [run_view(run) for run in runs],
        "before": runs[-1].flight if len(runs) == RUNS else None,
    }
