"""A flight as a grid of jobs and their steps, and what went wrong in it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final

from lab.flights.model import Attempt, Flight, Job, StepResult
from lab.flights.plain_text import clean
from lab.flights.recipe import Recipe
from lab.flights.status import JobStatus, StepStatus
from web.filters import breakable, duration
from web.times import job_url, seconds_of

BAD: Final = frozenset({JobStatus.FAIL, JobStatus.BROKEN, JobStatus.BLOCKED, JobStatus.STARVED, JobStatus.ABORTED})
BAD_STEP: Final = frozenset({StepStatus.FAIL, StepStatus.BROKEN, StepStatus.BLOCKED, StepStatus.ABORTED})


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
    url = job_url(job.flight, job.name)
    cells = {step.testid: _cell(job, step, url, now, stale=stale) for step in job.last.steps} if job.last else {}
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
    return lines if set(done) <= set(lines) else list(_merged(tuple(done), tuple(lines)))


@lru_cache(maxsize=512)
def _merged(done: tuple[str, ...], lines: tuple[str, ...]) -> tuple[str, ...]:
    """Jobs of one recipe mostly ran the same steps."""
    return tuple(merge_order([done, lines]))


def _cell(job: Job, step: StepResult, url: str, now: datetime, *, stale: bool) -> Cell:
    length = duration(seconds_of(step.started, step.finished, now))
    words = [f"{job.name}: {step.testid}: {step.status.value}, {length}"]
    if step.host:
        words.append(f"on {step.host}")
    if step.reason:
        words.append(clean(step.reason))
    return Cell(
        status=step.status.value,
        text="" if step.status is StepStatus.SKIPPED else length,
        title="\n".join(words),
        url=f"{url}#s-{step.stepno}",
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
    return next((step for step in attempt.steps if step.status in BAD_STEP), None)
