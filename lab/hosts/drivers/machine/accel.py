"""Whether this machine's KVM really runs a guest; `/dev/kvm` may be there and not do so."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Literal

Accel = Literal["tcg", "kvm"]

# mov dx, 0x501; mov al, 0x2a; out dx, al; hlt: makes isa-debug-exit end QEMU with (0x2a << 1) | 1.
_BOOT_SECTOR = bytes.fromhex("ba0105b02aeef4").ljust(510, b"\0") + b"\x55\xaa"
_DONE = 0x2A << 1 | 1
_looking = threading.Lock()
"""A job boots its hosts at once, each in a thread of its own: the first one finds out, the others read its note."""


def choose(wanted: Literal["auto", "tcg", "kvm"], notes: Path) -> Accel:
    """The accelerator to use: what was asked for, or for auto KVM where it works.

    That is found out once per boot of this machine, and noted in the folder `notes`.
    """
    match wanted:
        case "tcg" | "kvm":
            return wanted
        case "auto":
            if not os.access("/dev/kvm", os.R_OK | os.W_OK):
                return "tcg"
    note = notes / f"accel-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    with _looking:
        if not note.exists():
            new = note.with_suffix(f".{os.getpid()}")
            new.write_text("kvm" if runs("kvm") else "tcg")
            new.replace(note)
    return "kvm" if note.read_text() == "kvm" else "tcg"


def runs(accel: Accel, *, within_s: float = 5.0) -> bool:
    """Whether a PC under this accelerator gets through its firmware and runs a boot sector of ours."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(_BOOT_SECTOR)
        cpu = "host" if accel == "kvm" else "max"
        command = [
            "qemu-system-x86_64", "-accel", accel, "-cpu", cpu, "-M", "q35", "-m", "64", "-display", "none",
            "-nodefaults", "-no-user-config", "-device", "isa-debug-exit,iobase=0x501,iosize=2",
            "-drive", f"file={disk},format=raw,if=none,id=d", "-device", "ide-hd,drive=d",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=within_s, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == _DONE


@functools.cache
def qemu_build(program: str) -> str:
    """What the installed QEMU `program` calls itself, with its packager's version; empty when there is none."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.partition(
            "\n"
        )[0]
    except OSError:
        return ""


def qemu_version(program: str) -> tuple[int, int]:
    """The version of the installed QEMU `program`; (0, 0) when there is none."""
    try:
        major, minor = qemu_build(program).split("version ")[1].split()[0].split(".")[:2]
        return int(major), int(minor)
    except (IndexError, ValueError):
        return 0, 0
