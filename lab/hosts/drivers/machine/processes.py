"""Processes that outlive the one that started them: found by pid file, known by their command line, ended safely."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from lab.errors import Evidence, InfraError


def find(pid_file: Path, sign: str) -> int | None:
    """The living process the file names, if its command line holds `sign`: pids are used again."""
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if bears(pid, sign) else None


def search(sign: str, *, program: str) -> int | None:
    """A living process that bears `sign`, looked for among all that run a `program…`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and bears(int(entry.name), sign):
            with contextlib.suppress(OSError):
                if (entry / "exe").readlink().name.startswith(program):
                    return int(entry.name)
    return None


def bears(pid: int, sign: str) -> bool:
    """Whether `sign` is one argument of the process; a process that has ended has none."""
    try:
        return sign.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def end(pid: int, sign: str, number: signal.Signals, *, within_s: float) -> bool:
    """Send a signal and wait; True when the process has ended. Does nothing to one that does not bear `sign`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The handle holds the process: what we look at is what we signal.
        if not bears(pid, sign):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def start_helper(script: Path, *arguments: str, log: Path, busy_is_fine: bool = False, given: str = "") -> None:
    """Run one of our background programs, `given` this text; it has taken up its work when this returns."""
    with log.open("ab") as errors:
        done = subprocess.run(
            # -I -S: only the standard library, whatever the environment says, and quickly.
            [sys.executable, "-I", "-S", str(script), *arguments],
            input=given.encode(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            check=False,
            timeout=60,
        )
    if done.returncode and not (busy_is_fine and done.returncode == 1):
        said = log.read_text(errors="replace")[-2000:]
        raise InfraError(
            f"{script.name} did not start (exit status {done.returncode})",
            hint=f"see {log}",
            evidence=Evidence(command=str(script), exit_status=done.returncode, output=said),
        )
