"""`lab simulate`: what a lab would make of certain jobs, in virtual time; and what if it were another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from lab.cli.opening import lab_option, open_lab, settings_with
from lab.cli.render import json_option, output, print_json
from lab.cli.simulate_picture import picture
from lab.errors import ConfigError
from lab.flights.plain_text import clean
from lab.hosts.model import Host
from lab.hosts.simulation import Rules, Scenario
from lab.hosts.what_if import WhatIf, what_if
from lab.hosts.workload import Shape, a_lab, a_workload
from lab.labfile import load_lab_file
from lab.scenario_file import load_scenario
from lab.services.simulate import (
    Measured,
    check_scenario,
    compared,
    measure,
    measured_json,
    scenario_from_history,
)

_SHOWN = 12
"""Tenants in the table; `--json` has all."""


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--from-history", type=click.IntRange(1, 1_000_000), metavar="N", help="The lab's own newest N jobs.")
@click.option("--hosts", type=click.IntRange(1, 20_000), help="Make up so many hosts (default 20).")
@click.option("--jobs", type=click.IntRange(1, 1_000_000), help="Make up so many jobs (default 1000).")
@click.option("--tenants", type=click.IntRange(1, 1000), help="Make up so many tenants (default 20).")
@click.option("--over", "over_h", type=click.FloatRange(0, 10_000), help="Hours over which made-up flights come.")
@click.option("--gangs", type=click.FloatRange(0, 1), help="The part of made-up jobs that need two hosts.")
@click.option("--seed", type=int, default=1, show_default=True, help="Draws what is made up.")
@click.option("--what-if", "changes", multiple=True, help="hosts arm64 +2, share TENANT=2, weight set_up=0, ...")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture into this file.")
@lab_option
@json_option
def simulate(
    file: Path | None,
    from_history: int | None,
    hosts: int | None,
    jobs: int | None,
    tenants: int | None,
    over_h: float | None,
    gangs: float | None,
    seed: int,
    changes: tuple[str, ...],
    svg: Path | None,
    lab_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run jobs in virtual time through the lab's own planner.

    The jobs are those of FILE (TOML or JSON; lab/hosts/README.md has its format), those of the lab's own history, or
    made up. Each --what-if is one more run, of the same jobs, with one thing changed.
    """
    made_up = {"--hosts": hosts, "--jobs": jobs, "--tenants": tenants, "--over": over_h, "--gangs": gangs}
    given = [name for name, value in made_up.items() if value is not None]
    if sum([file is not None, from_history is not None, bool(given)]) > 1:
        raise ConfigError(
            "there is more than one source of jobs", hint=f"a file, --from-history, or {', '.join(made_up)}"
        )
    if file is not None:
        base = load_scenario(file, _hosts_of(lab_file), seed)
    elif from_history is not None:
        base = _from_history(lab_file, from_history)
    else:
        wanted = Shape()
        shape = Shape(
            hosts=hosts or wanted.hosts,
            jobs=jobs or wanted.jobs,
            tenants=tenants or wanted.tenants,
            over_h=over_h or wanted.over_h,
            gangs=wanted.gangs if gangs is None else gangs,
        )
        lab = a_lab(shape, seed)
        base = Scenario(hosts=lab, jobs=a_workload(shape, seed, lab), rules=Rules())
    variants = [WhatIf(text="as it is", scenario=base), *(what_if(text, base) for text in changes)]
    for one in variants:
        check_scenario(one.scenario)
    if svg is not None:
        _check_writable(svg)
    measured = [measure(one.text, one.scenario) for one in variants]
    if svg is not None:
        svg.write_text(picture(measured), encoding="utf-8")
    if as_json:
        first = measured_json(measured[0])
        print_json(
            {"seed": seed, "hosts": len(base.hosts), **first, "what_if": [measured_json(one) for one in measured[1:]]}
        )
        return
    _show(measured)
    if svg is not None:
        output().print(f"\npicture: {svg}", style="dim")


def _hosts_of(lab_file: Path | None) -> tuple[Host, ...]:
    path = settings_with(lab_file).file
    return load_lab_file(path).hosts() if path.exists() else ()


def _from_history(lab_file: Path | None, most: int) -> Scenario:
    lab = open_lab(settings_with(lab_file))
    with lab.reads() as session:
        return scenario_from_history(session, lab, most)


def _check_writable(path: Path) -> None:
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}", hint="name another file") from error


def _show(measured: Sequence[Measured]) -> None:
    base = measured[0]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for one in measured:
        table.add_column(Text(clean(one.what)), justify="right", overflow="fold")

    def row(name: str, *cells: str) -> None:
        table.add_row(Text(clean(name)), *cells)

    row("jobs that ran", *(f"{one.summary.ran:,}" for one in measured))
    row("all done after", *(_length(one.summary.makespan) for one in measured))
    row("least possible", *(_length(one.summary.bound.seconds) for one in measured))
    row("ratio of the two", *(f"{one.summary.ratio:.3f}" for one in measured))
    row("starved jobs", *(f"{len(one.summary.starved):,}" for one in measured))
    table.add_section()
    row(
        "wait: half / 9 in 10",
        *(f"{_length(one.summary.waits.p50)} / {_length(one.summary.waits.p90)}" for one in measured),
    )
    row("longest wait", *(_length(one.summary.waits.longest) for one in measured))
    for tenant in compared(measured)[:_SHOWN]:
        found = [one.summary.tenants.get(tenant) for one in measured]
        row(f"  {tenant}", *(f"{_length(one.p90)} / {_length(one.longest)}" if one else "" for one in found))
    if len(compared(measured)) > _SHOWN:
        row(f"  and {len(compared(measured)) - _SHOWN} more", *("" for _ in measured))
    table.add_section()
    for name in sorted({name for one in measured for name in one.summary.classes}):
        uses = [one.summary.classes.get(name) for one in measured]
        row(f"busy: {name}", *(f"{use.busy:.0%} of {use.hosts}" if use else "" for use in uses))
    table.add_section()
    row("decisions a second", *(f"{one.decisions / one.deciding:,.0f}" if one.deciding else "" for one in measured))
    row(
        "decision: half / 99 in 100",
        *(f"{one.decision_p50 * 1e3:.2f} / {one.decision_p99 * 1e3:.2f} ms" for one in measured),
    )
    row("full projection", *(f"{one.projection:.2f} s of {one.projected:,}" for one in measured))
    row("simulated in", *(f"{one.took:.1f} s" for one in measured))
    output().print(table)
    output().print(
        f"\nleast possible: {base.summary.bound.why}. Tenants: 9 in 10 wait no longer than / longest wait.", style="dim"
    )


def _length(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} d"
