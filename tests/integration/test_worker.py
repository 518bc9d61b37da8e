"""A real worker process behind a real broker: messages arrive, rows decide, and it ends with its lifeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from factories import a_host
from sqlalchemy import update

from lab.db import hosts
from lab.db.session import make_engine, make_sessions
from lab.db.tables import HostRow
from lab.hosts.model import HostState
from lab.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["filesystem", "redis", "rabbitmq"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_template: Path
) -> Settings:
    home = tmp_path / "home"
    (home / "logs").mkdir(parents=True)
    (home / "lab.db").write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LAB_HOME", str(home))
    if request.param != "filesystem":
        monkeypatch.setenv("LAB_BROKER_URL", request.getfixturevalue(f"{request.param}_url"))
    return read_settings()


@contextmanager
def a_worker(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """(the process, the writing end of its lifeline)."""
    reading, lifeline = os.pipe()
    log = settings.home / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "worker", "--lifeline", str(reading)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[reading],
            start_new_session=True,
        )
    os.close(reading)
    try:
        yield process, lifeline
    except BaseException:
        print(log.read_text(errors="replace")[-5000:])
        raise
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 45) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "the worker ended"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def test_a_worker_hears_acts_and_ends_with_its_lifeline(settings: Settings) -> None:
    from lab.broker import CeleryDispatch

    engine = make_engine(settings.database)
    sessions = make_sessions(engine)
    names = ["emu0", "emu1"]

    def dirty() -> list[str]:
        with sessions.begin() as session:
            return hosts.cleaning_hosts(session)

    def soil() -> None:
        with sessions.begin() as session:
            session.execute(update(HostRow).values(state=HostState.CLEANING.value))

    with sessions.begin() as session:
        hosts.sync_hosts(session, [a_host(name) for name in names])
    soil()
    dispatch = CeleryDispatch(settings, sessions)
    dispatch.clean_host("emu0")  # before there is a worker: the message waits
    with a_worker(settings) as (process, lifeline):
        until(lambda: dirty() == ["emu1"], process)
        dispatch.run_job(4711, "nobody's")  # such an attempt is not to be had, and that is no error
        dispatch.clean_host("emu1")
        until(lambda: not dirty(), process)
        soil()
        begun = time.monotonic()
        for name in names * 2:  # twice: the second message finds nothing to do
            dispatch.clean_host(name)
        until(lambda: not dirty(), process)
        assert time.monotonic() - begun < 5
        with sessions.begin() as session:
            assert all(view.host.health.value == "good" for view in hosts.list_hosts(session))
        os.close(lifeline)
        process.wait(30)
        log = (settings.home / "worker.log").read_text()
    assert "Traceback" not in log
    engine.dispose()


@pytest.mark.parametrize("settings", ["filesystem"], indirect=True)
def test_a_worker_told_to_stop_stops(settings: Settings) -> None:
    with a_worker(settings) as (process, lifeline):
        until(lambda: "ready" in (settings.home / "worker.log").read_text(), process)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        os.close(lifeline)
