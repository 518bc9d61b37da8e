"""`lab prune`: delete what nobody needs any more."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from lab.cli.opening import lab_option, open_lab, settings_with
from lab.cli.render import json_option, output, print_json
from lab.doctor.hosts import run_folders
from lab.flights.retention import Retention
from lab.hosts.drivers.machine.place import socket_folder
from lab.labfile import load_lab_file
from lab.services.prune import Prunable, prunable, prune


@click.command("prune")
@click.option("--days", type=click.IntRange(0, 36500), help="Keep the logs of flights that do not count for so long.")
@click.option("--real-days", type=click.IntRange(0, 36500), help="Keep the logs of real flights for so long.")
@click.option("--yes", is_flag=True, help="Really delete; without it, only tell what would go.")
@lab_option
@json_option
def prune_(days: int | None, real_days: int | None, lab_file: Path | None, *, yes: bool, as_json: bool) -> None:
    """Delete the logs of flights that ended long ago, and what machines that are gone left behind.

    How long logs are kept is in `[retention]` of the lab's file. Flights, jobs, steps and reasons stay in the database.
    Images, builds and checkpoints that nobody uses go by themselves.
    """
    settings = settings_with(lab_file)
    lab = open_lab(settings)
    kept = load_lab_file(settings.file).retention()
    rule = Retention(
        real_days=kept.real_days if real_days is None else real_days,
        other_days=kept.other_days if days is None else days,
    )
    with lab.reads() as session:
        found = list(prunable(session, lab, rule))
    own = socket_folder(settings.home)
    found += [
        Prunable(what="a run folder", why="no machine runs there", folder=folder, size=0)
        for folder in run_folders()
        if folder != own
    ]
    if yes:
        prune(found)
    if as_json:
        print_json(
            [
                {"what": one.what, "why": one.why, "folder": str(one.folder), "bytes": one.size, "gone": yes}
                for one in found
            ]
        )
        return
    if not found:
        output().print("There is nothing to delete.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("what", "why", "MiB", "folder"):
        table.add_column(column, justify="right" if column == "MiB" else "left")
    for one in found:
        table.add_row(one.what, one.why, f"{one.size / (1 << 20):.1f}", str(one.folder))
    output().print(table)
    total = sum(one.size for one in found) / (1 << 20)
    output().print(f"{total:.1f} MiB {'are gone' if yes else 'would go: say so with --yes'}")
