"""`lab bisect`: start, show, list, stop."""

from __future__ import annotations

import getpass
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text
from sqlalchemy.orm import Session

from lab.bootstrap import make_builds, make_image_store, make_trees
from lab.cli.engine import Engine
from lab.cli.flight import CLEAN_UP_S, images_of, with_settings
from lab.cli.image import build_images
from lab.cli.opening import lab_option, open_lab, open_working_lab
from lab.cli.render import ago, errors, json_option, output, print_json
from lab.context import Lab
from lab.db import bisections, flights
from lab.errors import ConfigError
from lab.flights.bisection_mail import bisection_mail
from lab.flights.bisection_runs import Bisection, BisectionState, Hosts, ProbeRun, Result
from lab.flights.bisection_views import TITLES, bisection_summary, bisection_view, blamed
from lab.flights.builds import CONFIGS, BuildRequest
from lab.flights.matrix import flight_specs
from lab.flights.matrix.table import FULL
from lab.flights.trial import trial_specs
from lab.services.bisect import default_policy, find_basis, start_bisection, start_bisection_between, stop_bisection

NOT_FOUND = 1
LOOK_EVERY_S = 0.5

_LOOK = {
    "running": ("◐", "cyan"),
    "found": ("✓", "bold green"),
    "inconclusive": ("?", "yellow"),
    "inconsistent": ("≠", "yellow"),
    "not-reproducible": ("∅", "yellow"),
    "stopped": ("■", "dim"),
    "failed": ("⚠", "bold yellow"),
}
_RESULTS = {
    "running": ("◐", "cyan"), "pass": ("✓", "green"), "fail": ("✗", "bold red"), "skip": ("⊘", "magenta"),
    "broken": ("⚠", "yellow"), "aborted": ("■", "dim"),
}  # fmt: skip


@click.group()
def bisect() -> None:
    """Bisections: which commit made a test fail."""


@bisect.command()
@click.argument("failing", metavar="FLIGHT.JOB | JOB")
@click.option("--testid", required=True, help="The step that fails.")
@click.option("--basis", metavar="FLIGHT", help="Where it passed (default: the branch's newest such flight before).")
@click.option("--tree", help="With JOB: the source tree; the job's Xen is built from it.")
@click.option("--good", metavar="REV", help="With --tree: a revision at which it passes.")
@click.option("--bad", metavar="REV", help="With --tree: one that descends from it, at which it fails.")
@click.option("--config", type=click.Choice(sorted(CONFIGS)), default="default", help="With --tree: how Xen is built.")
@click.option("--set", "settings", multiple=True, metavar="[JOB:]NAME=VALUE", help="With --tree: set a runvar.")
@click.option("--branch", help="With --tree: the branch of its flights (default: bisect-YOU).")
@click.option("--confidence", type=click.FloatRange(0.5, 0.9999), help="Before anybody is named (lab.toml: 0.99).")
@click.option("--at-once", type=click.IntRange(1, 64), help="Probes at one time.")
@click.option("--alternations", type=click.IntRange(0, 20), help="Times the edge shows a pass and then a failure.")
@click.option("--hosts", type=click.Choice([one.value for one in Hosts]), help="Those of the failing job, or alike.")
@click.option("--revert/--no-revert", default=None, help="Test the failure without the culprit, too.")
@click.option("--again", is_flag=True, help="Even if the same was answered before.")
@click.option("--follow", is_flag=True, help="Run the lab until it has ended; exit code 0: found, 1: not.")
@lab_option
@json_option
def start(
    failing: str, testid: str, basis: str | None, tree: str | None, good: str | None, bad: str | None, config: str,
    settings: tuple[str, ...], branch: str | None, confidence: float | None, at_once: int | None,
    alternations: int | None, hosts: str | None, lab_file: Path | None,
    *, revert: bool | None, again: bool, follow: bool, as_json: bool,
) -> None:  # fmt: skip
    """Search the commit with which a step began to fail.

    FLIGHT.JOB is a job that failed: it is run again, with its builds, at revisions between those of the flight in which
    the step passed and its own. Or name a JOB of the matrix, and a --tree with a --good and a --bad revision.

    It goes on as long as something runs the lab: this command with --follow, `lab serve`, or a leader and workers.
    """
    lab = open_working_lab(lab_file)
    policy = default_policy(lab)
    policy = replace(
        policy,
        confidence=policy.confidence if confidence is None else confidence,
        at_once=policy.at_once if at_once is None else at_once,
        alternations=policy.alternations if alternations is None else alternations,
    )
    flight, dot, job = failing.partition(".")
    if dot and flight.isdecimal():
        if tree or good or bad or settings or branch:
            raise ConfigError(f"{failing} has its revisions already", hint="--tree, --good, --bad go with a JOB alone")
        with lab.sessions.begin() as session:
            number = _start_from_flight(
                session, lab, flights.resolve_flight(session, flight), job, testid, basis,
                policy=policy, hosts_like=Hosts(hosts) if hosts else None, revert=revert, again=again,
            )  # fmt: skip
    else:
        if not (tree and good and bad):
            raise ConfigError(
                f"{failing}: of a job that no flight has run, --tree, --good and --bad are needed",
                hint="or name one that failed: FLIGHT.JOB",
            )
        if basis:
            raise ConfigError("--basis goes with FLIGHT.JOB", hint="--good says where it passes")
        commit = make_trees(lab.settings).resolve(tree, bad)
        request = BuildRequest(tree=tree, revision=commit, arch="amd64", config=config)
        builds = make_builds(lab.settings)
        specs = with_settings(trial_specs(flight_specs(FULL), [failing], request, builds.version_of(request)), settings)
        build_images(make_image_store(lab.settings), [*images_of(specs), builds.builder_of(request)])
        with lab.sessions.begin() as session:
            number = start_bisection_between(
                session, lab, specs, job=failing, testid=testid, tree=tree, good=good, bad=bad,
                branch=branch or f"bisect-{getpass.getuser()}", actor=getpass.getuser(), policy=policy, revert=revert,
                again=again,
            )  # fmt: skip
    if follow:
        _follow(lab, number, as_json=as_json)
    _show(_load(lab, number), lab, as_json=as_json)


def _start_from_flight(
    session: Session, lab: Lab, flight: int, job: str, testid: str, basis: str | None, **more: Any
) -> int:
    passed = (
        flights.resolve_flight(session, basis) if basis else find_basis(session, job=job, testid=testid, flight=flight)
    )
    return start_bisection(
        session, lab, job=job, testid=testid, failing_flight=flight, basis_flight=passed,
        actor=getpass.getuser(), **more,
    )  # fmt: skip


@bisect.command()
@click.argument("number", metavar="BISECTION", type=int)
@click.option("--follow", is_flag=True, help="Run the lab until it has ended; exit code 0: found, 1: not.")
@click.option("--mail", is_flag=True, help="Print the mail about it, as it stands.")
@lab_option
@json_option
def show(number: int, lab_file: Path | None, *, follow: bool, mail: bool, as_json: bool) -> None:
    """A bisection: its range, its probes, and whom it suspects. With --follow it goes on from where it stands."""
    lab = open_working_lab(lab_file) if follow else open_lab()
    one = _load(lab, number)
    if mail:
        written = bisection_mail(one)
        click.echo(f"Subject: {written.subject}\n\n{written.body}", nl=False)
        return
    if follow:
        _follow(lab, number, as_json=as_json)
    _show(one, lab, as_json=as_json)


@bisect.command("list")
@click.option("--branch", default="", help="Only of this branch.")
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def list_(branch: str, limit: int, *, running: bool, as_json: bool) -> None:
    """The newest bisections."""
    lab = open_lab()
    with lab.reads() as session:
        found = bisections.list_bisections(session, branch=branch, running=running, limit=limit)
    if as_json:
        print_json([bisection_summary(one) for one in found])
        return
    if not found:
        output().print("There is no bisection. Start one: lab bisect start FLIGHT.JOB --testid STEP")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("bisection", "branch", "job", "step", "state", "runs", "started", ""):
        table.add_column(column)
    for one in found:
        runs = sum(probe.own for probe in one.probes)
        table.add_row(
            str(one.id), one.branch, one.job, one.testid, _state(one.state), str(runs),
            ago(one.started, lab.clock()), Text(one.reason, style="dim"),
        )  # fmt: skip
    output().print(table)


@bisect.command()
@click.argument("number", metavar="BISECTION", type=int)
@click.option("--reason", default="", help="Why, for the record.")
def stop(number: int, reason: str) -> None:
    """Stop a bisection; the flights it has running are aborted, what it has found so far stays."""
    lab = open_lab()
    why = f"stopped by {getpass.getuser()}" + (f": {reason}" if reason else "")
    with lab.sessions.begin() as session:
        changed = stop_bisection(session, lab, number, reason=why)
    output().print(f"bisection {number} is stopped" if changed else f"bisection {number} had ended already")


def _load(lab: Lab, number: int) -> Bisection:
    with lab.reads() as session:
        return bisections.load_bisection(session, number)


def _follow(lab: Lab, number: int, *, as_json: bool) -> None:
    """Run the lab until the bisection has ended, and exit as it did."""
    told: dict[int, Result] = {}
    try:
        with Engine(lab) as engine:
            while True:
                engine.keep()
                one = _load(lab, number)
                for probe in one.probes:
                    if told.get(probe.number) is not probe.result:
                        told[probe.number] = probe.result
                        errors().print(_probe_line(one, probe), soft_wrap=True)
                if one.state.final:
                    break
                time.sleep(LOOK_EVERY_S)
            engine.wait_until_clean(CLEAN_UP_S)
    except KeyboardInterrupt:
        errors().print(
            f"\nbisection {number} is not stopped: `lab bisect show {number} --follow` goes on with it, "
            f"`lab bisect stop {number}` stops it"
        )
        sys.exit(130)
    _show(one, lab, as_json=as_json)
    sys.exit(0 if one.state is BisectionState.FOUND else NOT_FOUND)


def _show(one: Bisection, lab: Lab, *, as_json: bool) -> None:
    if as_json:
        print_json(bisection_view(one))
        return
    console = output()
    console.print(
        Text.assemble(
            (f"bisection {one.id}", "bold"), f"  {one.branch}  {one.job}  {one.testid}  ", _state(one.state),
            f"  {ago(one.started, lab.clock())}",
        )
    )  # fmt: skip
    for tree, history in zip(one.trees, one.histories, strict=True):
        console.print(
            f"  tree {tree.name}: passes at {history.basis[:12]}, fails at {history.failure[:12]}, "
            f"{len(history.commits)} commits", markup=False,
        )  # fmt: skip
    console.print(f"  {one.reason}", markup=False)
    for probe in one.probes:
        console.print(_probe_line(one, probe), soft_wrap=True)
    for tree_name, commit in blamed(one):
        console.print(f"  blamed: {tree_name} {commit.id}  {commit.author}: {commit.subject}", markup=False)
    if one.conclusion.get("confidence"):
        console.print(f"  confidence {one.conclusion['confidence']:.4f}")


def _probe_line(one: Bisection, probe: ProbeRun) -> Text:
    icon, style = _RESULTS[probe.result.value]
    revisions = ", ".join(f"{tree.name} {revision[:12]}" for tree, revision in zip(one.trees, probe.node, strict=True))
    where = f"flight {probe.flight}" if probe.flight else "no flight"
    return Text.assemble(
        f"  {probe.number:>3} {where:<12} {revisions}  ", (f"{icon} {probe.result.value:<8}", style),
        f" {probe.purpose:<10} ", (probe.reason, "dim"),
    )  # fmt: skip


def _state(state: BisectionState) -> Text:
    icon, style = _LOOK[state.value]
    return Text(f"{icon} {TITLES[state]}", style=style)
