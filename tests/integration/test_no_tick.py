"""No tick: from a host set free to the next job's first step, through real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from latency import idle_times, settings_of

from lab.settings import Settings

MOST_S = 0.5
"""Generous: a look every half second would already make it twice that, at every other job."""


@pytest.fixture(params=["embedded", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request, tmp_path, database="tick")


def test_a_host_does_not_wait_for_a_tick(settings: Settings) -> None:
    idle = sorted(idle_times(settings, hosts=2, jobs=24))
    assert len(idle) == 22
    print(f"idle between jobs: median {idle[11] * 1000:.0f} ms, longest {idle[-1] * 1000:.0f} ms")
    assert idle[11] < MOST_S, idle
