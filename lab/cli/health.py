"""What `lab host` does about a host's health: quarantine, drain, return."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
from sqlalchemy.orm import Session

from lab.cli.lease import open_tended, person_option, tend
from lab.cli.opening import lab_option
from lab.cli.render import errors, output
from lab.context import Lab
from lab.db import hosts
from lab.hosts.model import HostState
from lab.services.host_health import drain_host, quarantine_host, return_host


@click.command("quarantine")
@click.argument("name")
@click.option("--why", required=True, help="The reason, for everybody who asks.")
@person_option
@lab_option
def quarantine(name: str, why: str, person: str, lab_file: Path | None) -> None:
    """Let nothing new run on a host until you return it; what runs goes on."""
    _do(lab_file, name, lambda session, lab: quarantine_host(session, lab, name, why=why, actor=person))


@click.command("drain")
@click.argument("name")
@click.option("--why", required=True, help="The reason, for everybody who asks.")
@click.option("--wait", is_flag=True, help="Return once what runs on it has ended and it is powered off.")
@person_option
@lab_option
def drain(name: str, why: str, person: str, lab_file: Path | None, *, wait: bool) -> None:
    """Take a host out of use for maintenance: what runs is finished, nothing new begins, until you return it."""
    lab = _do(lab_file, name, lambda session, lab: drain_host(session, lab, name, why=why, actor=person))
    while wait:
        tend(lab)
        with lab.reads() as session:
            view = hosts.load_host(session, name)
        if view.host.state is HostState.FREE:
            break
        errors().print(f"{name} is {view.host.state.value}, held by {view.holder or 'nobody'}", markup=False)
        time.sleep(2)


@click.command("return")
@click.argument("name")
@click.option("--why", default="", help="What was done about it.")
@click.option("--at-once", is_flag=True, help="Without the checks of a burn-in.")
@person_option
@lab_option
def return_(name: str, why: str, person: str, lab_file: Path | None, *, at_once: bool) -> None:
    """Bring a host back into use: it is checked first (burn-in), and good again once it has passed."""
    _do(lab_file, name, lambda session, lab: return_host(session, lab, name, why=why, actor=person, at_once=at_once))


def _do(lab_file: Path | None, name: str, deed: Callable[[Session, Lab], None]) -> Lab:
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        deed(session, lab)
    tend(lab)
    with lab.reads() as session:
        host = hosts.load_host(session, name).host
    output().print(f"{name} is {host.health.value}: {host.health_reason}", markup=False)
    return lab
