"""`lab gate`: list, run, status, explain, decide; hold, waive, force, end."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.table import Table
from rich.text import Text

from lab.bootstrap import make_builds, make_image_store, make_trees
from lab.cli.engine import Engine
from lab.cli.flight import CLEAN_UP_S, images_of
from lab.cli.image import build_images
from lab.cli.moments import Length
from lab.cli.opening import lab_option, open_working_lab
from lab.cli.render import ago, errors, json_option, output, print_json
from lab.cli.verdict import print_verdict
from lab.context import Lab
from lab.db import board, gates
from lab.flights.board import BoardLine, GateRun, board_view, run_view
from lab.flights.builds import BuildRequest
from lab.flights.gate import ADVANCE, GateStep
from lab.flights.plain_text import clean
from lab.flights.verdict import verdict_of
from lab.services.gate import begin_gate, branch_of, decide_again, explain_gate, gate_specs, override
from lab.services.show_board import show_board

F = TypeVar("F", bound=Callable[..., Any])

PASSED: Final = 0
HELD: Final = 1
BROKEN: Final = 3
LOOK_EVERY_S: Final = 0.5

_LOOK = {
    "open": ("✓", "green"), "held": ("✗", "bold red"), "stopped": ("■", "yellow"), "testing": ("◐", "cyan"),
    "broken": ("⚠", "bold yellow"), "untested": ("·", "dim"),
}  # fmt: skip


@click.group()
def gate() -> None:
    """Push gates: a branch's tip is tested, and what is tested and good is let through.

    The branches are those of the lab's file ([branch.NAME]).
    """


def _why(function: F) -> F:
    """Options of whatever a person decides: all of it is kept with who, why and until when."""
    for option in (
        click.option("--actor", default=getpass.getuser, show_default="you", help="Who decides."),
        click.option("--for", "length", type=Length(), help="For so long, e.g. 12h or 7d."),
        click.option("--reason", required=True, help="Why; it is shown with the gate."),
    ):
        function = option(function)
    return function


@gate.command("list")
@lab_option
@json_option
def list_(lab_file: Path | None, *, as_json: bool) -> None:
    """How the branches stand."""
    lab = open_working_lab(lab_file)
    with lab.reads() as session:
        lines = show_board(session, lab, {name: branch.tree for name, branch in lab.branches.items()})
    if as_json:
        print_json([board_view(line) for line in lines])
        return
    if not lines:
        output().print("No branch has a gate: add a [branch.NAME] to the lab's file.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("branch", "gate", "let through", "tip", "behind", "schedule"):
        table.add_column(column)
    for line in lines:
        icon, style = _LOOK[line.state.value]
        table.add_row(
            line.name, Text(f"{icon} {line.state.value}", style=style), line.tested[:12], line.tip[:12],
            "" if line.distance is None else str(line.distance), lab.branches[line.name].schedule or "by hand",
        )  # fmt: skip
    output().print(table)


@gate.command()
@click.argument("branch")
@click.option("--baseline", is_flag=True, help="Only have the baseline tested, if it was not.")
@click.option(
    "--follow", is_flag=True, help="Run the lab until the gate has decided; the exit code is what it decided."
)
@lab_option
@json_option
def run(branch: str, lab_file: Path | None, *, baseline: bool, follow: bool, as_json: bool) -> None:
    """Run the gate of BRANCH: fetch the tip, test it, and push it if nothing new fails.

    Without --follow it goes on as long as something runs the lab (`lab serve`, or a leader and workers). Exit code: 0
    let through (or up to date, or begun), 1 held, 3 it could not decide or push.
    """
    lab = open_working_lab(lab_file)
    branch_of(lab, branch)
    if follow:
        _prepare(lab, branch)
    with lab.sessions.begin() as session:
        number = begin_gate(session, lab, branch, actor=getpass.getuser(), only_baseline=baseline)
    _go_on(lab, number, follow=follow, as_json=as_json)


@gate.command()
@click.argument("branch")
@click.option(
    "--follow", is_flag=True, help="Run the lab until the gate has decided; the exit code is what it decided."
)
@lab_option
@json_option
def decide(branch: str, lab_file: Path | None, *, follow: bool, as_json: bool) -> None:
    """Decide anew about what BRANCH tested last, with what people have waived since; nothing is tested again."""
    lab = open_working_lab(lab_file)
    with lab.sessions.begin() as session:
        number = decide_again(session, lab, branch, actor=getpass.getuser())
    _go_on(lab, number, follow=follow, as_json=as_json)


def _prepare(lab: Lab, branch: str) -> None:
    """Make the images that the flight will need."""
    settings = branch_of(lab, branch)
    trees, builds = make_trees(lab.settings), make_builds(lab.settings)
    commit = trees.fetch_ref(settings.tree, settings.url, settings.ref, keep=f"{branch}/tip")
    request = BuildRequest(tree=settings.tree, revision=commit, arch="amd64", config=settings.config)
    specs = gate_specs(lab, settings, commit)
    build_images(make_image_store(lab.settings), [*images_of(specs), builds.builder_of(request)])


def _go_on(lab: Lab, number: int, *, follow: bool, as_json: bool) -> None:
    if not follow:
        found = _load(lab, number)
        if as_json:
            print_json(run_view(found))
        else:
            output().print(f"gate run {number} of {found.branch} is under way: lab gate status {found.branch}")
        return
    said = ""
    try:
        with Engine(lab) as engine:
            while (found := _load(lab, number)).finished is None:
                engine.keep()
                if (now := _progress(found)) != said:
                    said = now
                    errors().print(now, markup=False)
                time.sleep(LOOK_EVERY_S)
            engine.wait_until_clean(CLEAN_UP_S)
    except KeyboardInterrupt:
        errors().print(f"\ngate run {number} goes on when something runs the lab: lab serve")
        sys.exit(130)
    if as_json:
        print_json({**run_view(found), "verdict": dict(found.verdict)})
    else:
        _print_run(found)
    sys.exit(_exit_code(found))


def _progress(found: GateRun) -> str:
    what = {
        GateStep.FETCHING: "fetching the tip", GateStep.BASELINE: f"flight {found.baseline_flight}: the baseline",
        GateStep.TESTING: f"flight {found.flight}: the tip {found.new[:12]}",
        GateStep.RETESTING: f"flights {', '.join(map(str, found.verdict.get('retests', [])))}: what failed, again",
        GateStep.PUSHING: f"pushing {found.new[:12]}",
    }  # fmt: skip
    return f"{found.branch}: {what.get(GateStep(found.state), found.state)}"


def _exit_code(found: GateRun) -> int:
    if found.state == GateStep.FAILED.value:
        return BROKEN
    return PASSED if found.decision == ADVANCE else HELD


def _print_run(found: GateRun) -> None:
    console = output()
    if "findings" in found.verdict:
        print_verdict(verdict_of(found.verdict))
        console.print()
    if found.state == GateStep.FAILED.value:
        icon, style, word = "⚠", "bold yellow", "nothing was decided, nothing was pushed"
    elif found.pushed:
        icon, style, word = "✓", "bold green", f"pushed {found.new[:12]}" if found.new != found.old else "up to date"
    elif found.decision == ADVANCE:
        icon, style, word = "✓", "bold green", "nothing to push"
    else:
        icon, style, word = "✗", "bold red", "held: not pushed"
    console.print(Text.assemble((f"{icon} {word}", style), f"  {clean(found.reason)}"), soft_wrap=True)


def _load(lab: Lab, number: int) -> GateRun:
    with lab.reads() as session:
        return board.load_run(session, number)


@gate.command()
@click.argument("branch")
@lab_option
@json_option
def status(branch: str, lab_file: Path | None, *, as_json: bool) -> None:
    """How the gate of BRANCH stands: what was let through, the tip, what blocks, and what people decided.

    Exit code: 0 open, 1 held, 3 the last run could not decide.
    """
    lab = open_working_lab(lab_file)
    settings = branch_of(lab, branch)
    with lab.reads() as session:
        (line,) = show_board(session, lab, {branch: settings.tree})
        runs = board.list_runs(session, branch, limit=5)
    if as_json:
        print_json({**board_view(line), "runs": [run_view(one) for one in runs]})
    else:
        _print_line(line, runs, lab)
    sys.exit({"held": HELD, "stopped": HELD, "broken": BROKEN}.get(line.state.value, PASSED))


def _print_line(line: BoardLine, runs: list[GateRun], lab: Lab) -> None:
    console = output()
    icon, style = _LOOK[line.state.value]
    console.print(Text.assemble((line.name, "bold"), "  ", (f"{icon} {line.state.value}", style)))
    behind = "" if line.distance is None else f", {line.distance} commits behind the tip"
    console.print(f"  let through {line.tested[:12] or 'nothing'}{behind}; tip {line.tip[:12] or 'unknown'}")
    if line.under_way:
        console.print(f"  flight {line.under_way.flight}: {line.under_way.done} of {line.under_way.total} jobs")
    for one in line.blockers:
        since = f"  since flight {one.since_flight}" if one.since_flight else ""
        owner = f"  {one.owner}" if one.owner else ""
        console.print(clean(f"  ✗ {one.job} {one.testid}  {one.note}{since}{owner}"), markup=False)
    for bisection in line.bisections:
        console.print(clean(f"  bisection {bisection.number}: {bisection.job} {bisection.testid}"), markup=False)
    for made in line.overrides:
        until = f" until {made.expires:%Y-%m-%d %H:%M} UTC" if made.expires else ""
        console.print(
            clean(f"  {made.number}: {made.kind} {made.what} by {made.actor}{until}: {made.reason}"), markup=False
        )
    for ran in runs:
        word = "pushed" if ran.pushed else ran.decision or ran.state
        told = f"  run {ran.id}  {ago(ran.started, lab.clock())}  {ran.new[:12]}  {word}  {ran.reason}"
        console.print(clean(told), style="dim", markup=False, soft_wrap=True)


@gate.command()
@click.argument("branch")
@lab_option
@json_option
def explain(branch: str, lab_file: Path | None, *, as_json: bool) -> None:
    """Why BRANCH is held, and exactly which failures would have to be waived to open its gate.

    Exit code: 0 nothing holds it, 1 something does.
    """
    lab = open_working_lab(lab_file)
    with lab.reads() as session:
        found, told = explain_gate(session, lab, branch)
    if as_json:
        print_json(
            {"branch": branch, "gate": found.id, "revision": found.new, "flight": found.flight, **told.as_json()}
        )
    else:
        console = output()
        console.print(f"[bold]{branch}[/]  run {found.id}, flight {found.flight}, {found.new[:12]}")
        console.print(f"  {told.decision.word}: {told.decision.reason}", markup=False, soft_wrap=True)
        for line in told.besides:
            console.print(clean(f"  no waiver helps: {line}"), markup=False, soft_wrap=True)
        if told.waive:
            console.print("  it would open if all of these were waived:" if not told.besides else "  and these block:")
        for one in told.waive:
            console.print(clean(f"    {one.job} {one.testid}"), markup=False)
        if told.waive:
            console.print(
                f"  lab gate waive {branch} JOB TESTID --revision {found.new[:12]} --reason ...; "
                f"lab gate decide {branch}",
                style="dim", markup=False, soft_wrap=True,
            )  # fmt: skip
    sys.exit(PASSED if told.decision.advance else HELD)


@gate.command()
@click.argument("branch")
@_why
@lab_option
def hold(branch: str, reason: str, length: timedelta | None, actor: str, lab_file: Path | None) -> None:
    """Let nothing of BRANCH through, whatever the tests say, until it is ended or its time is over."""
    _override(lab_file, branch, "hold", actor=actor, reason=reason, length=length)


@gate.command()
@click.argument("branch")
@click.argument("job")
@click.argument("testid")
@click.option("--revision", default="", help="Only at this revision.")
@_why
@lab_option
def waive(
    branch: str,
    job: str,
    testid: str,
    revision: str,
    reason: str,
    length: timedelta | None,
    actor: str,
    lab_file: Path | None,
) -> None:
    """Do not count the failure of TESTID of JOB; for a time (--for), at a revision, or both."""
    _override(
        lab_file, branch, "waive", actor=actor, reason=reason, length=length, job=job, testid=testid, revision=revision
    )


@gate.command()
@click.argument("branch")
@click.argument("revision")
@_why
@lab_option
def force(branch: str, revision: str, reason: str, length: timedelta | None, actor: str, lab_file: Path | None) -> None:
    """Let REVISION through once it has been tested, whatever came out. A hold has the last word."""
    _override(lab_file, branch, "force", actor=actor, reason=reason, length=length, revision=revision)


def _override(lab_file: Path | None, branch: str, kind: str, *, length: timedelta | None, **more: str) -> None:
    lab = open_working_lab(lab_file)
    expires = lab.clock() + length if length is not None else None
    with lab.sessions.begin() as session:
        number = override(session, lab, branch, kind, expires=expires, **more)
    until = f" until {expires:%Y-%m-%d %H:%M} UTC" if expires else ""
    output().print(f"{kind} {number} of {branch} is in force{until}; lab gate end {number} takes it back", markup=False)


@gate.command()
@click.argument("number", type=click.IntRange(1))
@click.option("--actor", default=getpass.getuser, show_default="you", help="Who decides.")
@lab_option
def end(number: int, actor: str, lab_file: Path | None) -> None:
    """Take back a hold, a waiver or a force by its NUMBER."""
    lab = open_working_lab(lab_file)
    with lab.sessions.begin() as session:
        branch = gates.end_override(session, number, actor=actor, now=lab.clock())
    output().print(f"override {number} of {branch} is taken back")
