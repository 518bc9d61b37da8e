"""Several looks at a host in one command: each remote command costs 0.1 to 0.2 s on an emulated host."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from lab.hosts.protocols import Shell


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one of the commands said (both streams, as they came) and how it ended; no status: it never ended."""

    output: str = ""
    exit_status: int | None = None


def read_all(shell: Shell, commands: Mapping[str, str], *, timeout_s: float = 60.0) -> Mapping[str, Reading]:
    """Run `commands` (name to a line of shell of ours) one after the other; none stops the next.

    Every name has a reading in the answer. A script that is cut short loses the rest, not what it has said.
    """
    token = secrets.token_hex(8)  # the outputs are untrusted: none may pretend to be a marker
    result = shell.script(marked_script(commands, token), timeout_s=timeout_s, check=False)
    return {name: Reading() for name in commands} | dict(split_readings(result.stdout, token))


def marked_script(commands: Mapping[str, str], token: str) -> str:
    """The script that runs `commands`, each followed by a marker line with its name and exit status."""
    return "\n".join(
        f"( {command}\n) 2>&1 </dev/null; printf '\\n@@{token} {name} %s\\n' $?" for name, command in commands.items()
    )


def split_readings(output: str, token: str) -> Mapping[str, Reading]:
    """What each command said, by name; output after the last marker belongs to nobody and is dropped."""
    readings: dict[str, Reading] = {}
    start = 0
    for marker in re.finditer(rf"\n@@{token} (\S+) ([0-9]+)\n", output):
        readings[marker[1]] = Reading(output=output[start : marker.start()], exit_status=int(marker[2]))
        start = marker.end()
    return readings
