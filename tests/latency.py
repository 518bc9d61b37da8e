"""How long a host stands idle between two jobs, through real processes: settle, bell, leader, broker, worker."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from databases import upgrade
from factories import PASSES, spec, submit
from fake_lab import fake_lab
from sqlalchemy import func, select, update

from lab.context import Lab
from lab.db.tables import AttemptHostRow, AttemptRow, ChangeRow, HostRow, JobRow, StepRow
from lab.flights.status import JobStatus
from lab.hosts.model import HostState
from lab.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def settings_of(request: pytest.FixtureRequest, folder: Path, *, database: str) -> Settings:
    """An empty lab as `request.param` says: embedded, or with servers, in a new `database`."""
    home = folder / "home"
    home.mkdir()
    if request.param == "embedded":
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "lab.db")
        return Settings(home=home)
    new: Callable[[str], str] = request.getfixturevalue("new_postgres_database")
    url = new(database)
    upgrade(url)
    return Settings(home=home, database_url=url, broker_url=request.getfixturevalue("redis_url"))


def idle_times(settings: Settings, *, hosts: int, jobs: int, behind: int = 0, seconds: float = 120) -> list[float]:
    """Seconds from the end of each job to the first step of the next one on its host, in order.

    `behind` more jobs, that go last, are queued for the same hosts before the first one starts.
    """
    environment = {
        "LAB_HOME": str(settings.home),
        "LAB_DATABASE_URL": settings.database,
        "LAB_BROKER_URL": settings.broker_url,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    lab = fake_lab(settings, hosts)
    with contextlib.ExitStack() as stack:
        for what in ("worker", "leader"):
            stack.enter_context(_process(settings.home, environment, str(hosts), what))
        _until(lambda: "ready" in (settings.home / "worker.log").read_text(), seconds)
        _set_hosts(lab, HostState.LEASED)
        for first in range(0, behind, 2000):
            submit(lab, *(spec(f"k{number}", PASSES) for number in range(first, min(behind, first + 2000))), priority=1)
        flight = submit(lab, *(spec(f"j{number}", PASSES) for number in range(jobs)))
        _until(lambda: not _changes(lab), seconds)
        _set_hosts(lab, HostState.FREE)
        _until(lambda: _ended(lab, flight) == jobs, seconds)
    found = _idle(lab, flight)
    lab.sessions.kw["bind"].dispose()
    return found


def _set_hosts(lab: Lab, state: HostState) -> None:
    with lab.sessions.begin() as session:
        session.execute(update(HostRow).values(state=state.value))
    lab.bell.ring()


def _changes(lab: Lab) -> int:
    with lab.reads() as session:
        return session.scalar(select(func.count()).select_from(ChangeRow)) or 0


def _idle(lab: Lab, flight: int) -> list[float]:
    begun = select(AttemptRow.finished, AttemptHostRow.host, StepRow.started).where(
        AttemptRow.flight == flight,
        AttemptHostRow.attempt == AttemptRow.id,
        StepRow.attempt == AttemptRow.id,
        StepRow.stepno == 1,
    )
    with lab.reads() as session:
        rows = sorted((started, finished, host) for finished, host, started in session.execute(begun))
    idle, free = [], {}
    for started, finished, host in rows:
        if host in free:
            idle.append((started - free[host]).total_seconds())
        free[host] = finished
    return idle


def _ended(lab: Lab, flight: int) -> int:
    with lab.reads() as session:
        query = select(JobRow.name).where(JobRow.flight == flight, JobRow.status == JobStatus.PASS.value)
        return len(session.scalars(query).all())


@contextlib.contextmanager
def _process(home: Path, environment: Mapping[str, str], *arguments: str):  # type: ignore[no-untyped-def]
    log = home / f"{arguments[-1]}.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fake_lab.py"), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    try:
        yield running
    except BaseException:
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _until(true, seconds: float) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)
