"""Hosts: they answer, nothing was left on, and nothing was left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lab.context import Lab
from lab.db import hosts
from lab.doctor.finding import Finding, error, ok, warning
from lab.errors import LabError
from lab.hosts.drivers.machine.place import socket_folder
from lab.hosts.model import Health, HostState

RUN_FOLDERS = Path("/tmp")  # noqa: S108 - where the lab's sockets are; see `socket_folder`


def check_hosts(lab: Lab) -> Iterator[Finding]:
    """The power of each host that nobody holds can be asked for; what is on is wanted by somebody."""
    with lab.reads() as session:
        views = hosts.list_hosts(session)
    for view in views:
        host = view.host
        if host.health not in (Health.GOOD, Health.SUSPECT):
            told = f"{host.name} is {host.health.value}: {host.health_reason}"
            yield warning("hosts", told, f"`lab host return {host.name}` once it is mended")
        if host.state is not HostState.FREE or view.holder:
            continue
        try:
            access = lab.machines.open(host.name)
            try:
                on = access.power.get()
            finally:
                access.close()
        except LabError as problem:
            yield error(
                "hosts", f"{host.name} does not answer: {problem.message}", problem.hint or "is its power control up?"
            )
            continue
        if on and host.setup_flight is None:
            yield warning(
                "hosts", f"{host.name} is on, though nobody has it", f"`lab host drain {host.name}` powers it off"
            )
    yield ok("hosts", f"{len(views)} looked at, those in use left alone")


def check_leftovers(lab: Lab) -> Iterator[Finding]:
    """Folders of labs that are gone: their homes were deleted, their sockets were not."""
    own = socket_folder(lab.settings.home)
    left = [str(folder) for folder in run_folders() if folder != own]
    if left:
        advice = "`lab prune` removes them"
        yield warning("leftovers", f"run folders without a running machine: {', '.join(left[:5])}", advice)
    else:
        yield ok("leftovers", "none")


def run_folders() -> list[Path]:
    """Our run folders in which no process listens on a socket."""
    listening = Path("/proc/net/unix").read_text(errors="replace")
    folders = sorted(RUN_FOLDERS.glob(f"flightline-{os.getuid()}-*"))
    return [folder for folder in folders if folder.is_dir() and f"{folder}/" not in listening]
