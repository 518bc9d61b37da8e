"""A flight with as little of it as two flights are compared by: columns only, no rows as objects."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab.db.flights import summarise_flight
from lab.db.tables import AttemptHostRow, AttemptRow, JobRow, RunvarRow, StepRow
from lab.flights.comparison import JobOutline, Outline, StepOutline

_COMMIT = "build_commit"


def load_outline(session: Session, flight: int) -> Outline:
    """The jobs of a flight with the steps of their newest attempts. `NotFoundError` when there is no such flight."""
    summary = summarise_flight(session, flight)
    newest = {
        row.job: row
        for row in session.execute(
            select(AttemptRow.id, AttemptRow.job, AttemptRow.number, AttemptRow.started, AttemptRow.finished)
            .where(AttemptRow.flight == flight)
            .order_by(AttemptRow.number)
        )
    }
    attempts = {row.id for row in newest.values()}
    hosts: dict[int, list[str]] = defaultdict(list)
    held = select(AttemptHostRow.attempt, AttemptHostRow.host).where(AttemptHostRow.attempt.in_(attempts))
    for attempt, host in session.execute(held.order_by(AttemptHostRow.attempt, AttemptHostRow.position)):
        hosts[attempt].append(host)
    steps = _steps(session, flight, attempts)
    settings: dict[str, dict[str, str]] = defaultdict(dict)
    commits: dict[str, str] = {}
    runvars = select(RunvarRow.job, RunvarRow.name, RunvarRow.value, RunvarRow.synth).where(RunvarRow.flight == flight)
    for job, name, value, synth in session.execute(runvars):
        if not synth:
            settings[job][name] = value
        elif name == _COMMIT:
            commits[job] = value
    jobs = {}
    listed = select(JobRow.name, JobRow.recipe, JobRow.status, JobRow.reason).where(JobRow.flight == flight)
    for name, recipe, status, reason in session.execute(listed.order_by(JobRow.position)):
        last = newest.get(name)
        jobs[name] = JobOutline(
            name=name,
            recipe=recipe,
            status=status,
            reason=reason,
            attempts=last.number if last else 0,
            hosts=tuple(hosts[last.id]) if last else (),
            seconds=(last.finished - last.started).total_seconds() if last and last.finished else None,
            settings=settings[name],
            commit=commits.get(name, ""),
            steps=tuple(steps[last.id]) if last else (),
        )
    return Outline(flight=summary, jobs=jobs)


def _steps(session: Session, flight: int, attempts: set[int]) -> dict[int, list[StepOutline]]:
    columns = (StepRow.attempt, StepRow.testid, StepRow.stepno, StepRow.status, StepRow.started, StepRow.finished)
    query = select(*columns, StepRow.reason).join(AttemptRow, AttemptRow.id == StepRow.attempt)
    found: dict[int, list[StepOutline]] = defaultdict(list)
    for attempt, testid, stepno, status, started, finished, reason in session.execute(
        query.where(AttemptRow.flight == flight).order_by(StepRow.attempt, StepRow.stepno)
    ):
        if attempt in attempts:
            seconds = (finished - started).total_seconds() if finished else None
            step = StepOutline(testid=testid, stepno=stepno, status=status, seconds=seconds, reason=reason)
            found[attempt].append(step)
    return found
