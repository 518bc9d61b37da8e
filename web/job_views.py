"""A job's page: its attempts, their steps on a line of time, and its runvars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from lab.flights.model import Attempt, Job, Runvar, StepResult, Wait
from lab.flights.recipe import Recipe
from lab.flights.runvars import DECLARED
from web.filters import breakable, duration
from web.grid_views import BAD_STEP
from web.times import Eta, eta_of, job_url, seconds_of

ONE_LINE: Final = 120
"""Characters of evidence that need no box of their own."""


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """A step on its job's page. `offset` is seconds since the attempt began; `tail` its log's end, if shown at once."""

    stepno: int
    testid: str
    step: str
    status: str
    started: datetime
    since: datetime | None
    offset: float
    seconds: float
    host: str
    reason: str
    facts: tuple[tuple[str, str], ...]
    """evidence that fits on a line"""
    evidence: tuple[tuple[str, str], ...]
    """the rest of it"""
    bad: bool
    log_url: str
    tail: str
    files: tuple[tuple[str, str], ...]
    consoles: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A step on the time line, in per cent of the whole; steps that ran side by side are in different lanes."""

    lane: int
    x: float
    width: float
    status: str
    title: str
    url: str


@dataclass(frozen=True, kw_only=True)
class AttemptTab:
    """One attempt to choose from."""

    number: int
    status: str
    reason: str
    url: str
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class RunvarLine:
    """A runvar, and what it means if that is known."""

    name: str
    value: str
    output: bool
    meaning: str


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """Everything on a job's page."""

    flight: int
    name: str
    name_parts: tuple[str, ...]
    url: str
    recipe: str
    recipe_summary: str
    status: str
    final: bool
    reason: str
    queued: datetime | None
    wait: Wait | None
    eta: Eta | None
    tabs: tuple[AttemptTab, ...]
    attempt: int
    attempt_status: str
    attempt_reason: str
    active: bool
    started: datetime | None
    since: datetime | None
    seconds: float | None
    worker: str
    hosts: tuple[tuple[str, str], ...]
    steps: tuple[StepLine, ...]
    to_come: tuple[str, ...]
    marks: tuple[Mark, ...]
    lanes: int
    runvars: tuple[RunvarLine, ...]
    files: tuple[tuple[str, str], ...]


def job_page(
    job: Job,
    attempt: Attempt | None,
    recipes: Mapping[str, Recipe],
    now: datetime,
    *,
    tails: Mapping[int, str],
    files: Mapping[int, Sequence[str]],
) -> JobPage:
    """Show one attempt of a job; `tails` are the ends of logs and `files` the names of kept files, by step number."""
    url = job_url(job.flight, job.name)
    recipe = recipes.get(job.recipe)
    steps = (
        tuple(
            _step_line(url, attempt, step, now, tail=tails.get(step.stepno, ""), files=files.get(step.stepno, ()))
            for step in attempt.steps
        )
        if attempt
        else ()
    )
    marks = _marks(attempt, now) if attempt else ()
    active = attempt is not None and attempt is job.last and job.status.active
    seen = {step.testid for step in steps}
    coming = active or (attempt is None and not job.status.final)
    return JobPage(
        flight=job.flight,
        name=job.name,
        name_parts=tuple(breakable(job.name)),
        url=url,
        recipe=job.recipe,
        recipe_summary=recipe.summary if recipe else "",
        status=job.status.value,
        final=job.status.final,
        reason=job.reason,
        queued=job.queued,
        wait=job.wait,
        eta=eta_of(job.wait, now),
        tabs=tuple(
            AttemptTab(
                number=other.number,
                status=other.status.value,
                reason=other.reason,
                url=url if other is job.last else job_url(job.flight, job.name, attempt=other.number),
                chosen=attempt is not None and other.number == attempt.number,
            )
            for other in job.attempts
        ),
        attempt=attempt.number if attempt else 0,
        attempt_status=attempt.status.value if attempt else "",
        attempt_reason=attempt.reason if attempt else "",
        active=active,
        started=attempt.started if attempt else None,
        since=attempt.started if attempt and attempt.finished is None else None,
        seconds=seconds_of(attempt.started, attempt.finished, now) if attempt else None,
        worker=attempt.worker if attempt else "",
        hosts=tuple(attempt.hosts.items()) if attempt else (),
        steps=steps,
        to_come=tuple(line.testid for line in recipe.lines_of(job.values) if line.testid not in seen)
        if recipe and coming
        else (),
        marks=marks,
        lanes=max((mark.lane for mark in marks), default=0) + 1,
        runvars=tuple(_runvar_line(runvar, attempt) for runvar in job.runvars),
        files=tuple(file for step in steps for file in step.files),
    )


def _step_line(
    url: str, attempt: Attempt, step: StepResult, now: datetime, *, tail: str, files: Sequence[str]
) -> StepLine:
    seen = [(label, str(text).strip()) for label, text in step.evidence.items() if str(text).strip()]
    return StepLine(
        stepno=step.stepno,
        testid=step.testid,
        step=step.step,
        status=step.status.value,
        started=step.started,
        since=None if step.finished else step.started,
        offset=(step.started - attempt.started).total_seconds(),
        seconds=seconds_of(step.started, step.finished, now),
        host=step.host or "",
        reason=step.reason,
        facts=tuple((label, text) for label, text in seen if _fits(text)),
        evidence=tuple((label, text) for label, text in seen if not _fits(text)),
        bad=step.status in BAD_STEP,
        log_url=f"{url}/log/{attempt.number}/{step.stepno}" if step.log else "",
        tail=tail,
        files=tuple((name, f"{url}/files/{attempt.number}/{step.stepno}/{quote(name, safe='')}") for name in files),
        consoles=tuple((host, _console_url(host, span)) for host, span in step.console.items()),
    )


def _fits(text: str) -> bool:
    return len(text) <= ONE_LINE and "\n" not in text


def _console_url(host: str, span: tuple[int, int | None]) -> str:
    start, end = span
    until = "" if end is None else f"&to={end}"
    return f"/hosts/{quote(host, safe='')}/console?from={start}{until}"


def _marks(attempt: Attempt, now: datetime) -> tuple[Mark, ...]:
    ends = [step.finished or now for step in attempt.steps]
    end = max([attempt.finished or now, *ends])
    whole = max((end - attempt.started).total_seconds(), 0.001)

    def place(moment: datetime) -> float:
        return max(0.0, min(100.0, 100 * (moment - attempt.started).total_seconds() / whole))

    marks, free_from = [], list[datetime]()
    for step in attempt.steps:
        lane = next((lane for lane, free in enumerate(free_from) if free <= step.started), len(free_from))
        free_from[lane : lane + 1] = [step.finished or end]
        marks.append(
            Mark(
                lane=lane,
                x=round(place(step.started), 3),
                # a step too short to be seen is still there
                width=round(max(0.25, place(step.finished or now) - place(step.started)), 3),
                status=step.status.value,
                title=f"{step.testid}: {step.status.value}, {duration(seconds_of(step.started, step.finished, now))}",
                url=f"#s-{step.stepno}",
            )
        )
    return tuple(marks)


def _runvar_line(runvar: Runvar, attempt: Attempt | None) -> RunvarLine:
    meaning = DECLARED.get(runvar.name, "")
    for role in attempt.hosts if attempt else ():
        if not meaning and runvar.name.startswith(f"{role}_"):
            inner = DECLARED.get(runvar.name.removeprefix(f"{role}_"), "")
            meaning = f"for the host in role {role}: {inner}" if inner else ""
    return RunvarLine(name=runvar.name, value=runvar.value, output=runvar.synth, meaning=meaning)
