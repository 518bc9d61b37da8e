"""Watching a flight: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.cli.plan import eta
from lab.cli.render import duration, status_text
from lab.context import Lab
from lab.db import flights
from lab.flights.model import Flight, Job
from lab.flights.recipe import all_recipes
from lab.flights.status import JobStatus, StepStatus

LOOK_EVERY_S = 0.3


def watch_flight(lab: Lab, flight: int, console: Console, *, keep: Callable[[], None] = lambda: None) -> Flight:
    """Show a flight until it has ended; `keep` is called all the time. Returns the flight as it ended."""
    shown: dict[str, str] = {}
    live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
    context: AbstractContextManager[object] = live or nullcontext()
    seen = -1
    with context:
        while True:
            keep()
            with lab.reads() as session:
                newest = flights.last_event(session)
                whole = flights.load_flight(session, flight) if newest != seen or live else None
            seen = newest
            if whole is not None:
                if live:
                    live.update(flight_table(whole, lab))
                else:
                    _print_changes(whole, shown, console)
                if whole.finished is not None:
                    return whole
            time.sleep(LOOK_EVERY_S)


def flight_table(flight: Flight, lab: Lab) -> Group:
    """A flight as a table: a row per job, with where it is and what it does."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("job", "status", "hosts", "steps", "time", "now"):
        table.add_column(column, no_wrap=column != "now", overflow="ellipsis")
    for job in flight.jobs:
        last = job.last
        table.add_row(
            job.name + (f" (try {last.number})" if last and last.number > 1 else ""),
            status_text(job.status.value),
            ", ".join(last.hosts.values()) if last else "",
            _progress(job),
            duration(last.started, last.finished or lab.clock()) if last else "",
            Text(_now(job, lab.clock()), style="dim"),
        )
    head = Text.assemble(
        (f"flight {flight.id}", "bold"),
        f"  {flight.branch}  ",
        status_text(flight.status.value),
        f"  {duration(flight.started, flight.finished or lab.clock())}",
    )
    return Group(head, table)


def _progress(job: Job) -> str:
    last = job.last
    recipe = all_recipes().get(job.recipe)
    if last is None or recipe is None:
        return ""
    done = sum(1 for step in last.steps if step.status.final)
    return f"{done}/{len(recipe.lines_of(job.values))}"


def _now(job: Job, now: datetime) -> str:
    last = job.last
    if job.status is JobStatus.QUEUED:
        expected = eta(job.wait, now) if job.wait else ""
        return f"{job.reason}; expected {expected}" if expected else job.reason
    if job.status.final or last is None or not last.steps:
        return job.reason
    step = last.steps[-1]
    if step.status is not StepStatus.RUNNING:
        return ""
    return f"{step.testid} on {step.host}" if step.host else step.testid


def _print_changes(flight: Flight, shown: dict[str, str], console: Console) -> None:
    for job in flight.jobs:
        for attempt in job.attempts:
            for step in attempt.steps:
                key = f"{job.name}.{attempt.number}.{step.testid}"
                if step.status.final and shown.get(key) != step.status.value:
                    shown[key] = step.status.value
                    line = Text(f"  {job.name:<36} {step.testid:<28} ")
                    line.append(status_text(step.status.value))
                    line.append(f"  {duration(step.started, step.finished)}  {step.reason}")
                    console.print(line, soft_wrap=True)
        if shown.get(job.name) != job.status.value:
            shown[job.name] = job.status.value
            where = ", ".join(job.last.hosts.values()) if job.last else ""
            line = Text(f"{job.name:<38} ", style="bold")
            line.append(status_text(job.status.value))
            line.append(f"  {where}  {job.reason}", style="dim")
            console.print(line, soft_wrap=True)
