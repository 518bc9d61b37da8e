"""The page of a job: its attempts, steps, evidence, runvars and consoles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db.flights import last_event, load_job, resolve_flight
from lab.errors import LabError, NotFoundError
from lab.flights.model import Attempt, Job, StepResult
from lab.flights.plain_text import clean
from lab.flights.status import StepStatus
from web.deps import LabDep, PagesDep, RecipesDep, SessionDep
from web.files import read_tail, step_files, step_log
from web.job_views import job_page

SHOWN_TAIL = 16 << 10
"""How much of a failed step's log is on the page itself, in bytes."""
router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)


def find_job(session: Session, flight: str, name: str) -> Job:
    """A job by what is in an address."""
    return load_job(session, resolve_flight(session, flight), name)


def find_attempt(job: Job, number: int) -> Attempt:
    """One attempt of a job."""
    for attempt in job.attempts:
        if attempt.number == number:
            return attempt
    raise NotFoundError(f"job {job.id} has no attempt {number}", hint=f"it has {len(job.attempts)}")


def find_step(attempt: Attempt, stepno: int) -> StepResult:
    """One step of an attempt."""
    for step in attempt.steps:
        if step.stepno == stepno:
            return step
    raise NotFoundError(f"there is no step {stepno} in attempt {attempt.number}")


@router.get("/flights/{flight}/jobs/{name}")
def show_job(
    flight: str,
    name: str,
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    recipes: RecipesDep,
    attempt: Annotated[int | None, Query(ge=1, lt=1 << 31)] = None,
    fragment: str | None = None,
) -> HTMLResponse:
    """A job and one of its attempts, the newest one unless told."""
    event = last_event(session)
    job = find_job(session, flight, name)
    chosen = job.last if attempt is None else find_attempt(job, attempt)
    steps = chosen.steps if chosen else ()
    page = job_page(
        job,
        chosen,
        recipes,
        lab.clock(),
        tails={step.stepno: _tail(lab, step) for step in steps if step.status in (StepStatus.FAIL, StepStatus.BROKEN)},
        files={step.stepno: _files(lab, step) for step in steps},
    )
    return pages.render("jobs/show.html", {"event": event, "job": page}, part="job", fragment=fragment)


def _tail(lab: Lab, step: StepResult) -> str:
    try:
        return clean(read_tail(step_log(lab, step), SHOWN_TAIL)[0].decode("utf-8", "replace"))
    except LabError:
        return ""


def _files(lab: Lab, step: StepResult) -> list[str]:
    try:
        return [path.name for path in step_files(lab, step)]
    except LabError:
        return []
