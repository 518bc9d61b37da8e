"""What the pages show, as plain values computed from the model; nothing here reads a clock, a file or the database."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final
from urllib.parse import quote

from lab.flights.model import Attempt, Flight, Job, Runvar, StepResult, Wait, Window
from lab.flights.recipe import Recipe
from lab.flights.runvars import DECLARED
from lab.flights.status import JobStatus, StepStatus
from web.filters import breakable, duration

# The order in which counts are shown: what needs a look first.
_ORDER: Final = (
    JobStatus.FAIL,
    JobStatus.BROKEN,
    JobStatus.BLOCKED,
    JobStatus.STARVED,
    JobStatus.ABORTED,
    JobStatus.RUNNING,
    JobStatus.PREPARING,
    JobStatus.QUEUED,
    JobStatus.PASS,
)
BAD: Final = frozenset({JobStatus.FAIL, JobStatus.BROKEN, JobStatus.BLOCKED, JobStatus.STARVED, JobStatus.ABORTED})
_BAD_STEP: Final = frozenset({StepStatus.FAIL, StepStatus.BROKEN, StepStatus.BLOCKED, StepStatus.ABORTED})


ONE_LINE: Final = 120
"""Characters of evidence that need no box of their own."""


def seconds_of(started: datetime, finished: datetime | None, now: datetime) -> float:
    """How long something took, or has been taking."""
    return ((finished or now) - started).total_seconds()


def spread(window: Window, now: datetime) -> str:
    """How long until a moment that is not known exactly."""
    early, late = ((moment - now).total_seconds() for moment in (window.p50, window.p90))
    if late < 1:
        return "any moment"
    said = duration(early) if early >= 1 else "any moment"
    return said if duration(early) == duration(late) else f"{said}, at most {duration(late)}"


@dataclass(frozen=True, kw_only=True)
class Eta:
    """When a waiting job is expected to start."""

    start: datetime
    text: str
    late: datetime


def eta_of(wait: Wait | None, now: datetime) -> Eta | None:
    """The expected start of a waiting job; None when nobody can tell."""
    if wait is None or wait.start is None:
        return None
    text = spread(wait.start, now)
    return Eta(start=wait.start.p50, text=text if text.startswith("any") else f"in {text}", late=wait.start.p90)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a bar: from `x` on, `width` wide, both in per cent."""

    status: str
    x: float
    width: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many jobs stand how, as numbers and as a bar from left to right."""

    total: int
    done: int
    parts: tuple[Part, ...]


def tally(jobs: Iterable[Job]) -> Tally:
    """Count jobs by status."""
    counts = Counter(job.status for job in jobs)
    total, parts, x = sum(counts.values()), [], 0.0
    # In the bar what has passed comes first, so that it fills up from the left.
    for status in (JobStatus.PASS, *_ORDER[:-1]):
        if counts[status]:
            width = 100 * counts[status] / total
            parts.append(Part(status=status.value, x=round(x, 3), width=round(width, 3), count=counts[status]))
            x += width
    return Tally(total=total, done=sum(counts[status] for status in JobStatus if status.final), parts=tuple(parts))


@dataclass(frozen=True, kw_only=True)
class FlightLine:
    """A flight in the list and at the head of its own page."""

    id: int
    branch: str
    status: str
    final: bool
    intended: str
    blessing: str
    submitter: str
    tenant: str
    note: str
    started: datetime
    finished: datetime | None
    seconds: float
    tally: Tally


def flight_line(flight: Flight, now: datetime) -> FlightLine:
    """Sum a flight up."""
    return FlightLine(
        id=flight.id,
        branch=flight.branch,
        status=flight.status.value,
        final=flight.finished is not None or flight.status.final,
        intended=flight.intended.value,
        blessing=flight.blessing.value,
        submitter=flight.submitter,
        tenant=flight.tenant,
        note=flight.note,
        started=flight.started,
        finished=flight.finished,
        seconds=seconds_of(flight.started, flight.finished, now),
        tally=tally(flight.jobs),
    )


def merge_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """One order for the items of many lists that keeps the order of each, as far as they agree with one another.

    ```
    boot  create  migrate  logs   \\
    boot  create  save     logs    >   boot  create  migrate  save  disk  logs
    boot  disk    logs            /
    ```
    Among items that may come next, the one seen first comes first.
    """
    rank: dict[str, int] = {}
    after: dict[str, set[str]] = {}
    before: Counter[str] = Counter()
    for items in lists:
        for item in items:
            rank.setdefault(item, len(rank))
            after.setdefault(item, set())
        for first, second in pairwise(items):
            if second not in after[first] and first != second:
                after[first].add(second)
                before[second] += 1
    ready = [(place, item) for item, place in rank.items() if not before[item]]
    heapq.heapify(ready)
    merged: list[str] = []
    left = dict(rank)
    while left:
        # With a circle in it nothing is ready: the one seen first breaks it.
        item = heapq.heappop(ready)[-1] if ready else next(iter(left))
        if left.pop(item, None) is None:
            continue
        merged.append(item)
        for follower in after[item]:
            before[follower] -= 1
            if not before[follower]:
                heapq.heappush(ready, (rank[follower], follower))
    return merged


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One step in the grid. `status` is the step's, or pending; `stale`: it is of an attempt that is to be repeated."""

    status: str
    text: str = ""
    title: str = ""
    url: str = ""
    since: datetime | None = None
    stale: bool = False


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row and a column meet: a cell for every host the step runs on, or none and why."""

    status: str
    """those of the cells, or unreached | absent"""
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One testid across the jobs."""

    testid: str
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One job at the head of the grid."""

    name: str
    name_parts: tuple[str, ...]
    url: str
    status: str
    reason: str
    recipe: str
    hosts: tuple[tuple[str, str], ...]
    attempts: int
    seconds: float | None
    since: datetime | None


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something in a flight that did not pass, with the first step that went wrong."""

    job: str
    job_url: str
    status: str
    testid: str
    url: str
    reason: str
    attempt: int
    retried: bool


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Jobs side by side, their steps below one another."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    troubles: tuple[Trouble, ...]
    hidden: int


_ABSENT: Final = Place(status="absent")


def job_url(flight: int, job: str, *, attempt: int | None = None, step: int | None = None) -> str:
    """The address of a job, of one of its attempts, of a step."""
    url = f"/flights/{flight}/jobs/{quote(job, safe='')}"
    if attempt is not None:
        url += f"?attempt={attempt}"
    return url if step is None else f"{url}#s-{step}"


def grid(
    flight: Flight, recipes: Mapping[str, Recipe], now: datetime, *, name: str = "", only_bad: bool = False
) -> Grid:
    """Lay a flight out; `name` and `only_bad` leave jobs out."""
    shown = [job for job in flight.jobs if name.lower() in job.name.lower() and (not only_bad or job.status in BAD)]
    placed = [_places(job, recipes, now) for job in shown]
    return Grid(
        columns=tuple(_column(job, now) for job in shown),
        rows=tuple(
            Row(testid=testid, places=tuple(places.get(testid, _ABSENT) for places in placed))
            for testid in merge_order([list(places) for places in placed])
        ),
        troubles=tuple(trouble for job in shown for trouble in _troubles(job)),
        hidden=len(flight.jobs) - len(shown),
    )


def _places(job: Job, recipes: Mapping[str, Recipe], now: datetime) -> dict[str, Place]:
    """A job's column. A step that runs on each host of a job (`xen-boot/src_host`) has one row with a cell a host."""
    recipe = recipes.get(job.recipe)
    roles = {role.name for role in recipe.roles} if recipe else set(job.last.hosts if job.last else ())
    stale = job.status is JobStatus.QUEUED
    cells = {step.testid: _cell(job, step, now, stale=stale) for step in job.last.steps} if job.last else {}
    rows: dict[str, list[Cell]] = {}
    for testid in _planned(job, list(cells), recipe):
        base, _, role = testid.rpartition("/")
        row = rows.setdefault(base if role in roles and len(roles) > 1 else testid, [])
        if testid in cells:
            row.append(cells[testid])
        elif not job.status.final:
            row.append(Cell(status="pending", title=f"{testid}: still to come"))
    return {
        testid: Place(status=" ".join(cell.status for cell in row) or "unreached", cells=tuple(row))
        for testid, row in rows.items()
    }


def _planned(job: Job, done: list[str], recipe: Recipe | None) -> list[str]:
    """The testids a job has or will have; a step that is not in the recipe stays after the one it followed."""
    lines = [line.testid for line in recipe.lines_of(job.values)] if recipe else []
    return lines if set(done) <= set(lines) else merge_order([done, lines])


def _cell(job: Job, step: StepResult, now: datetime, *, stale: bool) -> Cell:
    length = duration(seconds_of(step.started, step.finished, now))
    words = [f"{job.name}: {step.testid}: {step.status.value}, {length}"]
    if step.host:
        words.append(f"on {step.host}")
    if step.reason:
        words.append(step.reason)
    return Cell(
        status=step.status.value,
        text="" if step.status is StepStatus.SKIPPED else length,
        title="\n".join(words),
        url=job_url(job.flight, job.name, step=step.stepno),
        since=None if step.finished else step.started,
        stale=stale,
    )


def _column(job: Job, now: datetime) -> Column:
    last = job.last
    return Column(
        name=job.name,
        name_parts=tuple(breakable(job.name)),
        url=job_url(job.flight, job.name),
        status=job.status.value,
        reason=job.reason,
        recipe=job.recipe,
        hosts=tuple(last.hosts.items()) if last else (),
        attempts=len(job.attempts),
        seconds=seconds_of(last.started, last.finished, now) if last else None,
        since=last.started if last and last.finished is None else None,
    )


def _troubles(job: Job) -> list[Trouble]:
    """What went wrong in each attempt; a job without one (blocked, starved) tells its own reason."""
    found = []
    for attempt in job.attempts:
        newest = attempt is job.last
        status = attempt.status
        if status not in BAD and not (status is JobStatus.RUNNING and _first_bad(attempt)):
            continue
        step = _first_bad(attempt)
        found.append(
            Trouble(
                job=job.name,
                job_url=job_url(job.flight, job.name),
                status=step.status.value if step else status.value,
                testid=step.testid if step else "",
                url=job_url(
                    job.flight,
                    job.name,
                    attempt=None if newest else attempt.number,
                    step=step.stepno if step else None,
                ),
                reason=(step.reason if step else "") or attempt.reason or job.reason,
                attempt=attempt.number,
                retried=not newest,
            )
        )
    if not job.attempts and job.status in BAD:
        url = job_url(job.flight, job.name)
        found.append(
            Trouble(
                job=job.name,
                job_url=url,
                status=job.status.value,
                testid="",
                url=url,
                reason=job.reason,
                attempt=0,
                retried=False,
            )
        )
    return found


def _first_bad(attempt: Attempt) -> StepResult | None:
    return next((step for step in attempt.steps if step.status in _BAD_STEP), None)


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
        bad=step.status in _BAD_STEP,
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


@dataclass(frozen=True, kw_only=True)
class HostJob:
    """A job that ran on a host."""

    flight: int
    job: str
    url: str
    attempt: int
    status: str
    role: str
    started: datetime
    seconds: float


def jobs_on(host: str, flights: Iterable[Flight], now: datetime, *, limit: int = 20) -> list[HostJob]:
    """What ran on a host, newest first."""
    found = [
        HostJob(
            flight=flight.id,
            job=job.name,
            url=job_url(flight.id, job.name, attempt=None if attempt is job.last else attempt.number),
            attempt=attempt.number,
            status=attempt.status.value,
            role=role,
            started=attempt.started,
            seconds=seconds_of(attempt.started, attempt.finished, now),
        )
        for flight in flights
        for job in flight.jobs
        for attempt in job.attempts
        for role, name in attempt.hosts.items()
        if name == host
    ]
    return sorted(found, key=lambda ran: ran.started, reverse=True)[:limit]


def holder_url(holder: str | None) -> str:
    """The page of the job that holds a host (`FLIGHT.JOB`), if it is a job."""
    flight, dot, job = (holder or "").partition(".")
    return job_url(int(flight), job) if dot and job and flight.isdecimal() else ""
