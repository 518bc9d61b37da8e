"""Checkpoints of booted machines: what makes two machines the same, and which checkpoints are kept. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

SCHEME: Final = 1
"""Raised when what is saved, or how, changes: older checkpoints are then nobody's."""

UNUSED_FOR_S: Final = 7 * 86_400.0

Memory = Literal["own", "shared", "restored"]
"""A machine's memory: its own; one that can be saved; or a private view of a saved one."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a checkpoint says of itself: what its files must be, and when it was made (Unix seconds)."""

    target: str
    memory_bytes: int
    state_bytes: int
    state_sha256: str
    saved_at: float


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A checkpoint as the pruner sees it: the disk it takes, and when it was last used (Unix seconds)."""

    key: str
    bytes: int
    used_at: float


def content_key(command: Sequence[str], files: Mapping[str, str], qemu: str) -> str:
    """Name what a machine is once it has booted (24 hex digits).

    `command` is its command line without anything that is one host's own, `files` the digest of each file it loads,
    `qemu` the whole version of the program.
    """
    whole = json.dumps([SCHEME, qemu, list(command), sorted(files.items())])
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


def memory_options(machine: str, memory_mib: int, memory: Memory, folder: str = "checkpoint") -> list[str]:
    """QEMU's options for the machine and its memory; `folder` has the saved one, relative to the run folder."""
    size = ["-m", str(memory_mib)]
    match memory:
        case "own":
            return ["-M", machine, *size]
        case "shared":  # readable from outside, while nothing of it is ever written to a disk
            backend = f"memory-backend-memfd,id=mem,size={memory_mib}M,share=on"
            return ["-M", f"{machine},memory-backend=mem", *size, "-object", backend]
        case "restored":  # copy on write: what this machine changes stays its own
            backend = f"memory-backend-file,id=mem,size={memory_mib}M,mem-path={folder}/ram,share=off"
            return ["-M", f"{machine},memory-backend=mem", *size, "-object", backend, "-incoming", "defer"]


def to_prune(kept: Iterable[Kept], *, limit: int, now: float, spare: str = "") -> tuple[str, ...]:
    """Keys of the checkpoints that go: those long unused, then the longest unused ones until `limit` bytes are left.

    The one called `spare` stays in any case.
    """
    gone: list[str] = []
    taken = 0
    for one in sorted(kept, key=lambda one: (one.key != spare, -one.used_at)):
        taken += one.bytes
        if one.key != spare and (taken > limit or now - one.used_at > UNUSED_FOR_S):
            gone.append(one.key)
            taken -= one.bytes
    return tuple(gone)
