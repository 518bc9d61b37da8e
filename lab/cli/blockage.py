"""`lab blockage`: add, list, remove."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from lab.cli.lease import open_tended, person_option
from lab.cli.moments import Moment
from lab.cli.opening import lab_option
from lab.cli.render import json_option, output, print_json
from lab.db import leases
from lab.hosts.calendar import Blockage
from lab.hosts.lease_views import blockage_view
from lab.hosts.leases import stamp
from lab.services.block import block_hosts, unblock


@click.group()
def blockage() -> None:
    """Blockages: hosts that nobody may have for a time."""


def _line(one: Blockage) -> str:
    end = f"until {stamp(one.ends)}" if one.ends else "until further notice"
    return f"blockage {one.id}: {one.host or one.need} from {stamp(one.begins)} {end}, by {one.actor}: {one.why}"


@blockage.command()
@click.option("--host", help="This host.")
@click.option("--need", default="", help='All hosts that offer this, e.g. arch == "arm64".')
@click.option("--from", "begins", type=Moment(), help="From when (default: now).")
@click.option("--to", "ends", type=Moment(), help="Until when (default: until it is removed).")
@click.option("--why", required=True, help="What for; everybody sees it.")
@person_option
@lab_option
@json_option
def add(
    host: str | None, need: str, begins: datetime | None, ends: datetime | None, why: str, person: str,
    lab_file: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Block hosts. Jobs that run are not disturbed; none starts that would run into it."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = block_hosts(session, lab, why=why, actor=person, host=host, need=need, begins=begins, ends=ends)
    if as_json:
        print_json(blockage_view(one))
    else:
        output().print(_line(one), markup=False)


@blockage.command("list")
@lab_option
@json_option
def list_(lab_file: Path | None, *, as_json: bool) -> None:
    """The blockages that are not over."""
    lab = open_tended(lab_file)
    with lab.reads() as session:
        found = leases.blockages(session, lab.clock())
    if as_json:
        print_json([blockage_view(one) for one in found])
        return
    for one in found:
        output().print(_line(one), markup=False)
    if not found:
        output().print("No host is blocked.")


@blockage.command()
@click.argument("number", type=click.IntRange(1, (1 << 31) - 1))
@person_option
@lab_option
def remove(number: int, person: str, lab_file: Path | None) -> None:
    """Take a blockage away."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = unblock(session, lab, number, actor=person)
    output().print(f"removed {_line(one)}", markup=False)
