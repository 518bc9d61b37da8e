"""Fixtures of the tests on real Xen."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_cli import Cli, image_cache


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A lab with no flights yet; whatever is still on at the end is ended."""
    cache = image_cache()
    cache.mkdir(parents=True, exist_ok=True)
    home = tmp_path / "lab"
    home.mkdir()
    (home / "images").symlink_to(cache)
    lab = Cli(home)
    yield lab
    for pid in [*lab.worker_pids(), *filter(None, map(lab.qemu_pid, ("emu0", "emu1", "emu2", "emu3")))]:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def ending() -> Iterator[Callable[[subprocess.Popen[str]], None]]:
    """Ends started commands, whatever the test's outcome."""
    started: list[subprocess.Popen[str]] = []
    yield started.append
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
