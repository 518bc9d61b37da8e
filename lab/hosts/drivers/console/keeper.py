"""Sees to it that a real machine's console is recorded: whoever finds recorder or line dead starts them again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Final

from lab.hosts.drivers.console import line, recorder
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.machine import processes
from lab.hosts.protocols import Guard, no_guard
from lab.machine_settings.console import ConsoleSettings, ProgramConsole, SolConsole, TcpConsole
from lab.secrets import Secrets

ESCAPE: Final = "\x1c"
"""What ipmitool takes for the beginning of a command of its own when it is typed; `~` is needed on consoles."""
FOREVER: Final = "--keep"
"""Tells the recorder that no process of ours is the machine: it records until it is ended."""


class KeptConsole(RecordedConsole):
    """The console of a real machine: a recording that goes on whether the machine is on or off, or anybody works."""


def keep_console(
    host: str,
    settings: ConsoleSettings,
    secrets: Secrets,
    folder: Path,
    sockets: str,
    sign: str,
    *,
    guard: Guard = no_guard,
) -> RecordedConsole:
    """The host's console, recorded from now on. `folder` holds the recording, `sockets` is how its sockets begin.

    `sign` marks the two processes as this host's. A line that was started for other settings is started anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes.start_helper(
        Path(recorder.__file__), str(folder), sockets, sign, FOREVER, log=folder / "recorder.log", busy_is_fine=True
    )
    specification = _specification(settings, secrets)
    key = hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()[:16]
    running = processes.find(folder / "line.pid", sign)
    if running is not None and not processes.bears(running, key):
        processes.end(running, sign, signal.SIGTERM, within_s=10)
        running = None
    if running is None:
        processes.start_helper(
            Path(line.__file__), str(folder), sockets, sign, key, log=folder / "line.log", busy_is_fine=True,
            given=json.dumps(specification),
        )  # fmt: skip
    return KeptConsole(host, folder / "console.log", folder / "console.idx", f"{sockets}.console", guard)


def drop_console(folder: Path, sign: str) -> None:
    """End the recording of a host (that is no longer of the lab)."""
    for name in ("line.pid", "recorder.pid"):
        if (pid := processes.find(folder / name, sign)) is not None:
            processes.end(pid, sign, signal.SIGTERM, within_s=10)


def _specification(settings: ConsoleSettings, secrets: Secrets) -> dict[str, Any]:
    """What the line's process is told, on its standard input: no password is in a command line."""
    match settings:
        case TcpConsole():
            return {"address": settings.address, "port": settings.port, "telnet": settings.telnet}
        case SolConsole():
            run = [
                "ipmitool", "-I", "lanplus", "-H", settings.address, "-p", str(settings.port), "-U", settings.user,
                "-E", "-C", str(settings.cipher_suite), "-e", ESCAPE, "sol", "activate",
            ]  # fmt: skip
            return {"run": run, "environment": {"IPMI_PASSWORD": secrets.get(settings.password), "PATH": os.defpath}}
        case ProgramConsole():
            return {"run": list(settings.run)}
