"""From a host set free to the next job's first step: through real processes, embedded and with PostgreSQL and Redis.

pytest tests/benchmarks/test_latency.py -m benchmark -s
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import trial_catalogue
from latency import idle_times, settings_of

from lab.settings import Settings

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

TARGET_S = 0.1


@pytest.fixture(autouse=True)
def _catalogue() -> Iterator[None]:
    with trial_catalogue():
        yield


@pytest.fixture(params=["embedded", "production"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request, tmp_path, database=f"latency_{os.getpid()}_{request.node.callspec.indices['behind']}")


@pytest.mark.parametrize("behind", [0, 10_000])
def test_how_long_a_host_stands_idle(settings: Settings, behind: int) -> None:
    idle = sorted(idle_times(settings, hosts=1, jobs=40, behind=behind, seconds=600))
    median, p90 = idle[len(idle) // 2], idle[len(idle) * 9 // 10]
    where = "PostgreSQL and Redis" if settings.database_url else "SQLite and a folder"
    print(
        f"\n{where}, {behind} jobs behind: idle {median * 1000:.0f} ms (median), {p90 * 1000:.0f} ms (p90), "
        f"{idle[-1] * 1000:.0f} ms (longest of {len(idle)}); target {TARGET_S * 1000:.0f} ms; "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    assert median < TARGET_S
