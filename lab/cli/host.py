"""`lab host`: list, show, console, power."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from lab.bootstrap import sync_hosts
from lab.cli.lease import force_option, person_option
from lab.cli.opening import lab_option, open_lab, settings_with
from lab.cli.render import ago, json_option, output, print_json
from lab.cli.terminal import attach
from lab.context import Lab
from lab.db import flights, hosts
from lab.flights.model import Job
from lab.flights.views import health_change_view, host_view
from lab.hosts.examination import Findings, proposal, read
from lab.services.power_host import held_by


@click.group()
def host() -> None:
    """Hosts: the lab's machines."""


def _open(lab_file: Path | None) -> Lab:
    lab = open_lab(settings_with(lab_file))
    sync_hosts(lab)
    return lab


@host.command("list")
@lab_option
@json_option
def list_(lab_file: Path | None, *, as_json: bool) -> None:
    """The lab's hosts: state, health, who holds them."""
    lab = _open(lab_file)
    with lab.reads() as session:
        views = hosts.list_hosts(session)
    if as_json:
        print_json([host_view(view.host, holder=view.holder, since=view.since) for view in views])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("host", "arch", "state", "health", "held by", "since", "flags"):
        table.add_column(column)
    for view in views:
        table.add_row(
            view.host.name,
            view.host.arch,
            view.host.state.value,
            view.host.health.value,
            view.holder or "",
            ago(view.since, lab.clock()),
            " ".join(sorted(view.host.flags)),
        )
    output().print(table)


def findings_on(host: str, job: Job) -> Findings | None:
    """What a job found out about a host."""
    roles = job.last.hosts if job.last else {}
    return next((read(role, job.values) for role, name in roles.items() if name == host), None)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@host.command()
@click.argument("name")
@lab_option
@json_option
def show(name: str, lab_file: Path | None, *, as_json: bool) -> None:
    """One host: what it offers, what an examination found, and the history of its health."""
    lab = _open(lab_file)
    with lab.reads() as session:
        view = hosts.load_host(session, name)
        history = hosts.health_history(session, name)
        examined = flights.newest_job_on(session, recipe="examine", host=name)
    found = findings_on(name, examined) if examined else None
    if as_json:
        shown = host_view(view.host, holder=view.holder, since=view.since)
        shown["health_history"] = [health_change_view(change) for change in history]
        if examined and found:
            shown["examined"] = {
                "job": examined.id,
                "flags": sorted(found.flags),
                "properties": dict(found.properties),
                "proposed": list(proposal(view.host, found)),
            }
        print_json(shown)
        return
    console = output()
    console.print(view.host.name, style="bold")
    held = f"held by {view.holder} since {view.since:%F %T} UTC" if view.holder and view.since else "not held"
    console.print(f"  {view.host.arch}, {view.host.state.value}, health {view.host.health.value}, {held}", markup=False)
    console.print(f"  flags: {' '.join(sorted(view.host.flags)) or 'none'}", markup=False)
    for name_, value in view.host.properties.items():
        console.print(f"  {name_} = {value}", markup=False)
    if examined and found:
        proposed = proposal(view.host, found)
        console.print(f"  examined in {examined.id}{'' if proposed else ': as configured'}", markup=False)
        for line in proposed:
            console.print(f"    {line}", markup=False)
    for change in history:
        console.print(
            f"  {change.at:%F %T}  {change.old.value} -> {change.new.value} by {change.actor}: {change.reason}",
            markup=False,
        )
        if change.evidence:
            told = "; ".join(f"{what}: {_plain(value)}" for what, value in change.evidence.items())
            console.print(f"      evidence: {told}", markup=False)


@host.command()
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on as the console goes on.")
@click.option(
    "--attach", "interactive", is_flag=True, help="Type on it, too: the holder of its lease may (Ctrl-] ends)."
)
@click.option("--lines", type=click.IntRange(0), default=50, show_default=True, help="How much of what was recorded.")
@force_option
@person_option
@lab_option
def console(
    name: str, lab_file: Path | None, person: str, lines: int, *, follow: bool, interactive: bool, force: bool
) -> None:
    """The serial console of a host, as recorded and live. Everyone may read it; its lease's holder may type on it."""
    lab = _open(lab_file)
    with lab.reads() as session:
        hosts.load_host(session, name)
    if interactive and not force:
        held_by(lab, name, person)
    access = lab.machines.open(name)
    try:
        attach(access.console, lines=lines, follow=follow, interactive=interactive)
    finally:
        access.close()
