"""The language of the guest's agent: what it prints on the console, parsed. Pure, and unmoved by garbage.

At start `LAB-GUEST ready …`; each second `LAB-HB seq=… wall=… mono=… maxgap_ms=… mem=ok|bad`. `LAB ID VERB ARGS`
typed on the console asks; `LAB-OUT ID LINE` and finally `LAB-REPLY ID ok|error TEXT` answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lab.errors import ConfigError
from lab.hosts.protocols import AgentReply, Heartbeat

_HEARTBEAT = re.compile(
    r"LAB-HB seq=(\d{1,12}) wall=(\d{1,12}(?:\.\d{1,9})?) mono=(\d{1,12}(?:\.\d{1,9})?) "
    r"maxgap_ms=(\d{1,12}) mem=(ok|bad)(?=[\s\r]|$)",
    re.ASCII,
)
_VERB = re.compile(r"[a-z]{1,16}")


def heartbeat(line: str) -> Heartbeat | None:
    """The heartbeat in a whole line; None when there is none."""
    found = _HEARTBEAT.search(line)
    if found is None:
        return None
    seq, wall, mono, gap, memory = found.groups()
    return Heartbeat(seq=int(seq), wall_s=float(wall), mono_s=float(mono), maxgap_ms=int(gap), memory_ok=memory == "ok")


def heartbeats(text: str) -> list[Heartbeat]:
    """All heartbeats in whole lines of the text, each number once, by number."""
    return merged(beat for line in whole_lines(text) if (beat := heartbeat(line)) is not None)


def merged(beats: Iterable[Heartbeat]) -> list[Heartbeat]:
    """One heartbeat a number, the first seen, by number: a migrated guest's come from two logs."""
    first: dict[int, Heartbeat] = {}
    for beat in beats:
        first.setdefault(beat.seq, beat)
    return [first[seq] for seq in sorted(first)]


def whole_lines(text: str) -> list[str]:
    """The lines that have ended; what follows the last newline may still grow."""
    return text.split("\n")[:-1]


def request(ident: str, verb: str, argument: str) -> str:
    """The line to type; `ConfigError` when it would be read as something else."""
    if not _VERB.fullmatch(verb):
        raise ConfigError(f"{verb!r} is no verb of the guest's agent")
    if any(ord(character) < 32 or ord(character) == 127 for character in argument):
        raise ConfigError("a command for the guest's agent is one line without control characters")
    line = f"LAB {ident} {verb} {argument}".rstrip()
    if len(line.encode()) > 4000:
        raise ConfigError("a command for the guest's agent has at most 4000 bytes")
    return line + "\n"


def reply(text: str, ident: str) -> AgentReply | None:
    """The answer to request `ident`, once its last line is there."""
    lines: list[str] = []
    output, last = f"LAB-OUT {ident}", f"LAB-REPLY {ident} "
    for line in whole_lines(text):
        line = line.strip("\r")  # the PV shim ends its lines the other way round
        if line == output or line.startswith(output + " "):
            lines.append(line[len(output) + 1 :])
        elif last in line:
            verdict, _, rest = line.partition(last)[2].partition(" ")
            if verdict in {"ok", "error"}:
                return AgentReply(ok=verdict == "ok", text=rest.strip(), lines=tuple(lines))
    return None
