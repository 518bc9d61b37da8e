"""Fixtures of the tests on real Xen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_cli import Cli, image_cache

HOSTS = ("emu0", "emu1", "emu2", "emu3")


@contextmanager
def lab_at(folder: Path) -> Iterator[Cli]:
    """A lab with no flights yet; whatever is still on at the end is ended."""
    cache = image_cache()
    cache.mkdir(parents=True, exist_ok=True)
    home = folder / "lab"
    home.mkdir()
    (home / "images").symlink_to(cache)
    lab = Cli(home)
    yield lab
    for pid in [*lab.worker_pids(), *filter(None, map(lab.qemu_pid, HOSTS))]:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home / "checkpoints", ignore_errors=True)  # large, and of no use to anybody who looks for the cause


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A lab of the test's own."""
    with lab_at(tmp_path) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A lab that the tests of a file have together."""
    with lab_at(tmp_path_factory.mktemp("shared")) as lab:
        yield lab


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
