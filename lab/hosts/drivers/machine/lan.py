"""A host's place on the emulated network."""

from __future__ import annotations

import socket
from pathlib import Path

from lab.errors import InfraError
from lab.hosts.drivers.machine.processes import start_helper

_SWITCH = Path(__file__).with_name("switch.py")


def attach(folder: Path, lan: str, name: str) -> None:
    """Give the host a fresh port on the lab's switch, starting the switch when it is not running."""
    for _ in range(3):
        if _asked(folder, f"attach {lan} {name}\n"):
            return
        start_helper(_SWITCH, str(folder), log=folder / "switch.log", busy_is_fine=True)
    raise InfraError(f"{name}: the switch of the emulated network does not answer", hint=f"see {folder}/switch.log")


def _asked(folder: Path, line: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10.0)
            peer.connect(f"{folder}/switch")
            peer.sendall(line.encode())
            return peer.recv(16) == b"ok\n"
    except OSError:
        return False
