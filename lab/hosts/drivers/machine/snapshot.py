"""Saving a running machine's memory and state to files, and filling a fresh machine with them.

The memory is not sent through QEMU's migration stream (`x-ignore-shared`): it is copied from the machine's shared
memory while the machine stands still, and mapped copy-on-write by those that are started from it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from lab.errors import InfraError
from lab.hosts.drivers.machine.qmp import Qmp

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_LIMIT_S = 30.0


def save(qmp: Qmp, pid: int, folder: Path, *, wait: Callable[[float], None]) -> tuple[int, int, str]:
    """Write `ram` and `state` into `folder`; the sizes of both, and the state's SHA-256. The machine runs on.

    Raises `InfraError` (or `OSError` of the disk), and lets the machine run on even then.
    """
    qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
    qmp.execute("stop")
    try:
        state = folder / "state"
        qmp.execute("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
        _completed(qmp, wait)
        memory_bytes = _copy_memory(pid, folder / "ram")
        content = state.read_bytes()
    finally:
        qmp.execute("cont")
    return memory_bytes, len(content), hashlib.sha256(content).hexdigest()


def load(qmp: Qmp, state: Path, *, wait: Callable[[float], None]) -> None:
    """Fill a machine that waits for it with a saved state; it stands still afterwards. `InfraError` if it cannot."""
    qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
    qmp.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
    until = time.monotonic() + _LIMIT_S
    while (status := qmp.execute("query-status")["status"]) == "inmigrate":
        if time.monotonic() > until:
            raise InfraError(f"the saved state was not loaded within {_LIMIT_S:.0f} s")
        wait(0.02)
    if status not in ("paused", "prelaunch"):
        raise InfraError(f"after its state was loaded, the machine is {status}")


def _completed(qmp: Qmp, wait: Callable[[float], None]) -> None:
    until = time.monotonic() + _LIMIT_S
    while (answer := qmp.execute("query-migrate")).get("status") != "completed":
        if answer.get("status") in ("failed", "cancelled") or time.monotonic() > until:
            qmp.execute("migrate_cancel")
            raise InfraError(f"the machine's state was not saved: {answer.get('error-desc', answer.get('status'))}")
        wait(0.02)


def _copy_memory(pid: int, target: Path) -> int:
    """Copy the machine's shared memory, leaving holes where it is empty; returns its size."""
    with _memory_of(pid).open("rb", buffering=0) as memory, target.open("wb", buffering=0) as copy:
        size = os.fstat(memory.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(memory.fileno(), at, os.SEEK_DATA) // _CHUNK * _CHUNK
            except OSError:  # nothing but a hole is left
                break
            chunk = os.pread(memory.fileno(), _CHUNK, at)
            if chunk != _ZEROS[: len(chunk)]:
                _write(copy.fileno(), chunk, at)
            at += len(chunk)
        os.ftruncate(copy.fileno(), size)
    return size


def _write(file: int, data: bytes, at: int) -> None:
    """Write the pages of `data` that are not empty, neighbours at once."""
    view, page = memoryview(data), 4096 * 16
    start: int | None = None
    for offset in range(0, len(data), page):
        empty = data[offset : offset + page] == _ZEROS[: len(data) - offset][:page]
        if empty and start is not None:
            os.pwrite(file, view[start:offset], at + start)
            start = None
        elif not empty and start is None:
            start = offset
    if start is not None:
        os.pwrite(file, view[start:], at + start)


def _memory_of(pid: int) -> Path:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("/memfd:memory-backend-memfd"):
                return entry
        except OSError:
            continue
    raise InfraError("the machine's memory cannot be read from outside")
