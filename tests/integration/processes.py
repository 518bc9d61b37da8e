"""Processes of a lab, as an operator starts them: `with process(home, "leader") as leader: …`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Process:
    """A running `lab COMMAND` and what it has written."""

    running: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> float:
        """`kill -9`, at this moment (monotonic seconds)."""
        self.running.send_signal(signal.SIGKILL)
        now = time.monotonic()
        self.running.wait(10)
        return now

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(timeout_s)


@contextmanager
def process(
    home: Path, *command: str, settings: Mapping[str, str] | None = None, name: str = ""
) -> Iterator[Process]:
    """Run `lab COMMAND` with these settings over the environment's; it is killed at the end."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"{name or command[0]}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "lab.cli", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "LAB_HOME": str(home), "PYTHONPATH": str(ROOT), **(settings or {})},
        )
    started = Process(running, log)
    try:
        yield started
    except BaseException:
        print(f"--- {log.name}\n{started.said()[-5000:]}")
        raise
    finally:
        running.kill()
        running.wait()


def until(true: Callable[[], object], *alive: Process, seconds: float = 45) -> float:
    """Wait until it is true, while these live; returns how long it took."""
    begun = time.monotonic()
    while not true():
        for each in alive:
            assert each.running.poll() is None, f"{each.log.name} ended: {each.said()[-2000:]}"
        assert time.monotonic() - begun < seconds, "it takes too long"
        time.sleep(0.02)
    return time.monotonic() - begun
