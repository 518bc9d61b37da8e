"""Machines that outlive whoever switched them on: each is a process of its own, known by its pid file."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from factories import FakeHost, FakeMachines, FakePower

from faults.points import AFTER, BEFORE, Reach
from lab.errors import InfraError

# The machine writes its own pid file; until then it holds the lock (descriptor $2) of whoever switches it.
_MACHINE = 'echo $$ >"$1.new" && mv "$1.new" "$1" && eval "exec $2>&-" && exec sleep 1000000'


class MachinePower(FakePower):
    """The switch of a machine in `folder`."""

    def __init__(self, folder: Path, name: str, reach: Reach) -> None:
        super().__init__()
        self._pid_file, self._lock_file, self._reach = folder / f"{name}.pid", folder / f"{name}.lock", reach

    def set(self, on: bool) -> None:
        """Switch; a machine that is on and is switched on begins anew."""
        word = "on" if on else "off"
        self._reach(f"power {word}", BEFORE)
        with self._lock_file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kill_machine(self._pid_file)
            if on:
                self._start(lock)
        self._reach(f"power {word}", AFTER)

    def get(self) -> bool | None:
        return machine_pid(self._pid_file) is not None

    def _start(self, lock: IO[str]) -> None:
        held = lock.fileno()
        subprocess.run(
            ["setsid", "-f", "bash", "-c", _MACHINE, "bash", str(self._pid_file), str(held)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[held], check=True,
        )  # fmt: skip
        end = time.monotonic() + 10
        while machine_pid(self._pid_file) is None:
            if time.monotonic() > end:
                raise InfraError(f"machine {self._pid_file.stem} does not start")
            time.sleep(0.002)


def machine_pid(pid_file: Path) -> int | None:
    """The process of a machine that is on, None when it is off."""
    try:
        pid = int(pid_file.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else pid


def kill_machine(pid_file: Path) -> bool:
    """`kill -9` of a machine; False when it was off."""
    pid = machine_pid(pid_file)
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    while machine_pid(pid_file) == pid:
        time.sleep(0.001)
    return True


class MachineHost(FakeHost):
    """A host whose machine is a process; who uses it when goes into a journal."""

    def __init__(self, name: str, folder: Path, reach: Reach) -> None:
        super().__init__(name)
        self.power: MachinePower = MachinePower(folder, name, reach)
        self._journal = folder / "journal"

    @contextmanager
    def used_by(self, job: str) -> Iterator[None]:
        """Note in the journal that a job uses the host now."""
        use = uuid.uuid4().hex
        self._note("begin", use, job)
        try:
            yield
        finally:
            self._note("end", use, job)

    def _note(self, what: str, use: str, job: str) -> None:
        line = {"what": what, "use": use, "job": job, "host": self.name, "pid": os.getpid(), "at": time.monotonic()}
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")  # one write: lines of several processes never mix
        finally:
            os.close(descriptor)


class Machines(FakeMachines):
    """The lab's machines, as processes below `folder`."""

    def __init__(self, names: Sequence[str], folder: Path, reach: Reach) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.hosts = {name: MachineHost(name, folder, reach) for name in names}
