"""`lab job`: show, why, log, history."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.text import Text

from lab.cli.opening import open_lab
from lab.cli.plan import eta
from lab.cli.render import ago, duration, json_option, output, print_json, status_text
from lab.context import Lab
from lab.db import flights
from lab.db.history import classes_of, runs_of_job, runs_of_test
from lab.errors import ConfigError, NotFoundError
from lab.flights.history import by_class, class_view, rate_of, rate_view, run_view
from lab.flights.model import Attempt, Job, StepResult
from lab.flights.plain_text import clean
from lab.flights.status import JobStatus
from lab.flights.views import job_view, wait_view


@click.group()
def job() -> None:
    """Jobs of a flight, called FLIGHT.JOB (e.g. 12.test-amd64-amd64-xl-pv or latest.test-amd64-amd64-xl-pv)."""


def load(lab: Lab, name: str) -> Job:
    """The job called FLIGHT.JOB."""
    flight, dot, job_name = name.partition(".")
    if not dot:
        raise ConfigError(f"{name!r} does not name a job", hint="write FLIGHT.JOB, e.g. latest.test-amd64-amd64-xl-pv")
    with lab.reads() as session:
        return flights.load_job(session, flights.resolve_flight(session, flight), job_name)


@job.command()
@click.argument("job")
@json_option
def show(job: str, *, as_json: bool) -> None:
    """A job with all its attempts, steps and runvars."""
    lab = open_lab()
    found = load(lab, job)
    if as_json:
        print_json(job_view(found))
        return
    console = output()
    console.print(f"[bold]{escape(found.id)}[/]  recipe {escape(found.recipe)} ", status_text(found.status.value))
    if found.reason:
        console.print(f"  {found.reason}", markup=False)
    if found.wait and (expected := eta(found.wait, lab.clock())):
        console.print(f"  expected to start {expected}", markup=False)
    for attempt in found.attempts:
        hosts = ", ".join(f"{role} = {host}" for role, host in attempt.hosts.items()) or "the controller"
        console.print(f"\nattempt {attempt.number} on {hosts} ", status_text(attempt.status.value), markup=False)
        for step in attempt.steps:
            console.print(
                f"  {step.stepno:>3} {step.testid:<30}",
                status_text(step.status.value),
                duration(step.started, step.finished),
                step.reason,
                markup=False,
            )
    console.print("\nrunvars", style="bold")
    for runvar in found.runvars:
        console.print(f"  {runvar.name} = {runvar.value}", style="" if runvar.synth else "dim", markup=False)


@job.command()
@click.argument("job")
@json_option
def why(job: str, *, as_json: bool) -> None:
    """Why a job waits, and when and where it is expected to run; of a job that does not wait, how it stands and why."""
    lab = open_lab()
    found = load(lab, job)
    with lab.reads() as session:
        tenant, _recipe = flights.tenant_and_recipe(session, found.flight, found.name)
    if as_json:
        print_json(
            {
                "flight": found.flight,
                "job": found.name,
                "status": found.status.value,
                "tenant": tenant,
                "reason": found.reason,
                "waiting": wait_view(found.wait) if found.wait else None,
            }
        )
        return
    console = output()
    reason = Text(clean(found.reason))
    console.print(f"[bold]{escape(found.id)}[/]", status_text(found.status.value), reason, soft_wrap=True)
    if found.status is not JobStatus.QUEUED:
        return
    if found.wait is None:
        console.print("  no leader has looked at it yet; does the lab run? (`lab serve`, or `lab worker list`)")
        return
    facts = {
        "tenant": tenant,
        "place": str(found.wait.place or ""),
        "expected": eta(found.wait, lab.clock()),
        "on": ", ".join(f"{role} = {host}" for role, host in found.wait.hosts.items()),
        "said": ago(found.wait.updated, lab.clock()),
    }
    for name, text in facts.items():
        if text:
            console.print(f"  {name:<9} {clean(text)}", markup=False)


@job.command()
@click.argument("job")
@click.argument("testid", required=False)
@click.option("--attempt", type=click.IntRange(1), help="Which attempt (default: the newest).")
def log(job: str, testid: str | None, attempt: int | None) -> None:
    """The log of a step, or of all steps of a job."""
    lab = open_lab()
    found = load(lab, job)
    tried = _attempt(found, attempt)
    steps = [step for step in tried.steps if testid in (None, step.testid)]
    if not steps:
        there = ", ".join(step.testid for step in tried.steps) or "none yet"
        raise NotFoundError(f"{found.id} has no step {testid!r}", hint=f"there are: {there}")
    for step in steps:
        click.echo(f"=== {step.testid} ({step.status.value})")
        click.echo(clean(_read(lab, step)), nl=False)


def _attempt(found: Job, number: int | None) -> Attempt:
    for attempt in reversed(found.attempts):
        if number in (None, attempt.number):
            return attempt
    raise NotFoundError(f"{found.id} has no attempt {number or ''}".rstrip(), hint="it may still be waiting for a host")


def _read(lab: Lab, step: StepResult) -> str:
    path = lab.logs / step.log
    if not step.log or not path.is_file():
        return "(no log)\n"
    return path.read_text(encoding="utf-8", errors="replace")


@job.command()
@click.argument("job")
@click.argument("testid", default="")
@click.option("--branch", default="", help="Only flights of this branch.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many runs.")
@json_option
def history(job: str, testid: str, branch: str, limit: int, *, as_json: bool) -> None:
    """How jobs of the name JOB (e.g. test-amd64-amd64-xl-pv), or their test TESTID, went; the newest run first."""
    lab = open_lab()
    with lab.reads() as session:
        if testid:
            runs = runs_of_test(session, job, testid, branch=branch, limit=limit)
        else:
            runs = runs_of_job(session, job, branch=branch, limit=limit)
        classes = by_class(runs, classes_of(session))
    rate = rate_of(run.status for run in runs)
    if as_json:
        print_json(
            {
                "job": job,
                "testid": testid,
                "branch": branch,
                "rate": rate_view(rate),
                "classes": [class_view(one) for one in classes],
                "runs": [run_view(run) for run in runs],
            }
        )
        return
    console = output()
    for run in runs:
        told = clean(": ".join(part for part in (run.testid if not testid else "", run.reason) if part))
        where = ", ".join(run.hosts) or "the controller"
        console.print(f"{run.flight:>6}", status_text(run.status), f"on {where}", told, markup=False)
    for one in classes:
        if one.rate.share is not None:
            share, low, high = (round(100 * part) for part in (one.rate.share, one.rate.low, one.rate.high))
            which = one.host_class or "no host"
            console.print(
                f"{which}: {share} % of {one.rate.told} passed ({low} to {high} %)", style="dim", markup=False
            )
