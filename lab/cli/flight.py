"""`lab flight`: run, list, show, watch, abort."""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

from lab.bootstrap import make_image_store
from lab.cli.engine import Engine
from lab.cli.image import build_images
from lab.cli.matrix import chosen_jobs, matrix_options
from lab.cli.opening import lab_option, open_lab, open_working_lab
from lab.cli.render import ago, duration, errors, json_option, output, print_json, status_text
from lab.cli.sources import prepare_sources, series_with_source
from lab.cli.watch import flight_table, watch_flight
from lab.context import Lab
from lab.db import flights
from lab.db.history import classes_of
from lab.db.outlines import load_outline
from lab.errors import ConfigError
from lab.flights.comparison import Change, Comparison, comparison_view
from lab.flights.comparison import compare as compare_flights
from lab.flights.coverage import coverage_of
from lab.flights.matrix.table import Build
from lab.flights.model import Flight, JobSpec
from lab.flights.plain_text import clean
from lab.flights.report_mail import mail_text, report_mail
from lab.flights.report_text import report_text
from lab.flights.report_views import report_view
from lab.flights.status import INTENDED, Blessing, JobStatus, exit_code
from lab.flights.views import flight_summary, flight_view
from lab.services.construct import check_job, construct_flight
from lab.services.report import report_flight
from lab.services.settle import abort_flight

CLEAN_UP_S = 90.0


@click.group()
def flight() -> None:
    """Flights: numbered sets of jobs."""


@flight.command()
@matrix_options
@click.option(
    "--set", "settings", multiple=True, metavar="[JOB:]NAME=VALUE", help="Set a runvar, of all jobs or of one."
)
@click.option("--branch", default="adhoc", show_default=True, help="The line of development this flight belongs to.")
@click.option(
    "--intended",
    type=click.Choice(sorted(blessing.value for blessing in INTENDED)),
    default=Blessing.PLAY.value,
    show_default=True,
    help="What the flight counts as once it has ended.",
)
@click.option("--note", default="", help="A line about why.")
@click.option("--tenant", default="", help="Whose share of the hosts it uses (default: you).")
@lab_option
@json_option
def run(
    matrix: str,
    build: Build,
    patterns: tuple[str, ...],
    settings: tuple[str, ...],
    branch: str,
    intended: str,
    note: str,
    tenant: str,
    lab_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run a flight here and now: build what is missing, boot the hosts, test, judge.

    `lab matrix show` tells which jobs a matrix has. Ctrl-C aborts the flight: its hosts are powered off, and what was
    found so far is kept.
    """
    specs = with_settings(chosen_jobs(matrix, build, patterns), settings)  # a mistake is said before anything else
    lab = open_working_lab(lab_file)
    if build == "source":
        sources = series_with_source(lab.settings)
        specs = with_settings(chosen_jobs(matrix, build, patterns, sources=sources), settings)
    builders = prepare_sources(lab.settings, specs)
    for spec in specs:
        check_job(lab, spec)
    signal.signal(signal.SIGTERM, interrupt)
    with Engine(lab) as engine:  # the worker gets ready while the images are looked at
        build_images(make_image_store(lab.settings), [*images_of(specs), *builders])
        with lab.sessions.begin() as session:
            number = construct_flight(
                session,
                lab,
                specs,
                branch=branch,
                intended=Blessing(intended),
                submitter=getpass.getuser(),
                tenant=tenant,
                note=note,
            )
        ended = fly(lab, number, engine)
    if as_json:
        print_json(flight_view(ended, lab.coverage))
    else:
        print_verdict(ended, lab)
    sys.exit(exit_code(ended.status))


def interrupt(_signal: int, _frame: object) -> None:
    """Being told to end is the same as Ctrl-C: the flight is aborted, and its hosts are powered off."""
    raise KeyboardInterrupt


def fly(lab: Lab, number: int, engine: Engine) -> Flight:
    """Keep the engine going until the flight has ended and its hosts are clean."""
    try:
        ended = watch_flight(lab, number, errors(), keep=engine.keep)
    except KeyboardInterrupt:
        errors().print(f"aborting flight {number}: keeping the evidence, powering its hosts off …")
        with lab.sessions.begin() as session:
            abort_flight(session, lab, number, reason=f"stopped by {getpass.getuser()}")
        ended = watch_flight(lab, number, errors(), keep=engine.keep)
    if not engine.wait_until_clean(CLEAN_UP_S):
        errors().print("[yellow]some hosts are still being powered off; `lab host list` shows them[/]")
    return ended


def with_settings(specs: Sequence[JobSpec], settings: Sequence[str]) -> list[JobSpec]:
    """The jobs with what `--set [JOB:]NAME=VALUE` says; `ConfigError` when it says nothing."""
    changed = list(specs)
    for text in settings:
        target, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--set {text!r}: there is no '='", hint="e.g. --set guest_memory=256")
        job, colon, name = target.rpartition(":")
        if colon and job not in {spec.name for spec in specs}:
            raise ConfigError(f"--set {text!r}: the flight has no job {job!r}")
        changed = [
            replace(spec, runvars={**spec.runvars, name: value}) if not colon or spec.name == job else spec
            for spec in changed
        ]
    return changed


def images_of(specs: Sequence[JobSpec]) -> list[str]:
    """The images that the jobs name."""
    found = {value for spec in specs for name, value in spec.runvars.items() if name.endswith("_image")}
    return sorted(found)


def print_coverage(whole: Flight, lab: Lab) -> None:
    """Whether what is demanded of a flight's coverage is met, a line for each demand."""
    for one in coverage_of(whole, lab.coverage):
        if one.demanded:
            mark = "✓ enough" if one.enough else "✗ too little" if one.lost else "… not yet enough"
            output().print(f"{mark}: {one}", markup=False)


def print_verdict(ended: Flight, lab: Lab) -> None:
    """A flight that has ended, in a few lines."""
    console = output()
    counts: dict[str, int] = {}
    for job in ended.jobs:
        counts[job.status.value] = counts.get(job.status.value, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print()
    console.print(
        f"flight {ended.id}:", status_text(ended.status.value), f"({told})", duration(ended.started, ended.finished)
    )
    for job in ended.jobs:
        if job.reason and job.status.value != "pass":
            console.print(f"  {job.name}: ", status_text(job.status.value), job.reason, markup=False)
    print_coverage(ended, lab)
    console.print(f"  see it: ./run lab flight show {ended.id}   or in the browser: ./run serve", style="dim")


@flight.command("list")
@click.option("--branch", help="Only this branch.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def list_(branch: str | None, limit: int, *, as_json: bool) -> None:
    """The newest flights."""
    lab = open_lab()
    with lab.reads() as session:
        found = flights.list_flights(session, branch=branch, limit=limit)
    if as_json:
        print_json([flight_summary(each) for each in found])
        return
    if not found:
        output().print("There is no flight yet. Start one: ./run flight")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("flight", "branch", "status", "jobs", "started", "took"):
        table.add_column(column)
    for each in found:
        table.add_row(
            str(each.id),
            each.branch,
            status_text(each.status.value),
            f"{each.counts.get(JobStatus.PASS, 0)}/{sum(each.counts.values())} pass",
            ago(each.started, lab.clock()),
            duration(each.started, each.finished),
        )
    output().print(table)


@flight.command()
@click.argument("a")
@click.argument("b", default="latest")
@json_option
def compare(a: str, b: str, *, as_json: bool) -> None:
    """What differs in flight B from flight A (numbers, or `latest`). The exit code is 1 if any job became worse."""
    lab = open_lab()
    with lab.reads() as session:
        first, second = (load_outline(session, flights.resolve_flight(session, name)) for name in (a, b))
        found = compare_flights(first, second, classes_of(session))
    if as_json:
        print_json(comparison_view(found))
    else:
        _print_comparison(found)
    worse = any(one.change is Change.WORSE for one in found.jobs)
    raise SystemExit(exit_code(JobStatus.FAIL if worse else JobStatus.PASS))


def _print_comparison(found: Comparison) -> None:
    console = output()
    for value in (*found.revisions, *found.settings):
        of = value.jobs[0] if len(value.jobs) == 1 else f"{len(value.jobs)} jobs"
        console.print(f"{value.name} of {of}: {clean(value.a) or '-'} -> {clean(value.b) or '-'}", markup=False)
    for one in found.jobs:
        ends = [status_text(side.status) if side else "-" for side in (one.a, one.b)]
        console.print(f"{one.change.value}: {one.name}", ends[0], "->", ends[1], markup=False)
        for step in one.steps:
            ends = [status_text(side.status) if side else "not run" for side in (step.a, step.b)]
            reason = next((side.reason for side in (step.b, step.a) if side and side.reason), "")
            console.print(f"    {step.testid}", ends[0], "->", ends[1], clean(reason), markup=False)
    console.print(f"{found.same} jobs went the same way", style="dim")


@flight.command()
@click.argument("flight", default="latest")
@click.option("--eml", is_flag=True, help="The mail, headers and all.")
@json_option
def report(flight: str, *, eml: bool, as_json: bool) -> None:
    """The report of a flight in OSSTest's layout: what blocks, since when, who touched what, and what was pushed."""
    lab = open_lab()
    with lab.reads() as session:
        found = report_flight(session, lab, flights.resolve_flight(session, flight))
    if as_json:
        print_json(report_view(found))
    elif eml:
        to = lab.mail.to[0] if lab.mail.to else lab.mail.sender
        click.echo(mail_text(report_mail(found, sender=lab.mail.sender, to=to)), nl=False)
    else:
        click.echo(report_text(found), nl=False)


@flight.command()
@click.argument("flight", default="latest")
@json_option
def show(flight: str, *, as_json: bool) -> None:
    """A flight with its jobs and steps (FLIGHT is a number, or `latest`). The exit code is 0 whatever the verdict."""
    lab = open_lab()
    with lab.reads() as session:
        whole = flights.load_flight(session, flights.resolve_flight(session, flight))
    if as_json:
        print_json(flight_view(whole, lab.coverage))
        return
    output().print(flight_table(whole, lab))
    print_coverage(whole, lab)
    for job in whole.jobs:
        if job.last is None:
            continue
        output().print(f"\n{job.name}", style="bold")
        for step in job.last.steps:
            output().print(
                f"  {step.stepno:>3} {step.testid:<30}",
                status_text(step.status.value),
                duration(step.started, step.finished),
                step.reason,
                markup=False,
            )


@flight.command()
@click.argument("flight", default="latest")
@json_option
def watch(flight: str, *, as_json: bool) -> None:
    """Follow a flight until it ends; the exit code is its verdict."""
    lab = open_lab()
    with lab.reads() as session:
        number = flights.resolve_flight(session, flight)
    ended = watch_flight(lab, number, errors())
    if as_json:
        print_json(flight_view(ended, lab.coverage))
    sys.exit(exit_code(ended.status))


@flight.command()
@click.argument("flight")
@click.option("--reason", default="", help="Why, for the record.")
def abort(flight: str, reason: str) -> None:
    """Stop a flight; what was found so far stays."""
    lab = open_lab()
    why = f"stopped by {getpass.getuser()}" + (f": {reason}" if reason else "")
    with lab.sessions.begin() as session:
        number = flights.resolve_flight(session, flight)
        changed = abort_flight(session, lab, number, reason=why)
    output().print(f"flight {number} is being aborted" if changed else f"flight {number} had ended already")
