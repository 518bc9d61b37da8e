"""No tick: from a host set free to the next job's first step, through real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import upgrade
from latency import idle_times

from lab.settings import Settings

MOST_S = 0.5
"""Generous: a look every half second would already make it twice that, at every other job."""


@pytest.fixture(params=["embedded", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    if request.param == "embedded":
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "lab.db")
        return Settings(home=home)
    new: Callable[[str], str] = request.getfixturevalue("new_postgres_database")
    url = new("tick")
    upgrade(url)
    return Settings(home=home, database_url=url, broker_url=request.getfixturevalue("redis_url"))


def test_a_host_does_not_wait_for_a_tick(settings: Settings) -> None:
    idle = sorted(idle_times(settings, hosts=2, jobs=24))
    assert len(idle) == 22
    print(f"idle between jobs: median {idle[11] * 1000:.0f} ms, longest {idle[-1] * 1000:.0f} ms")
    assert idle[11] < MOST_S, idle
