"""A short fault matrix: a lab of real processes is killed a few times, and everything holds."""

from __future__ import annotations

import pytest

from faults.driver import EMBEDDED, SERVERS, FaultRun


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [EMBEDDED, SERVERS])
def test_whatever_is_killed_everything_holds(engine: str) -> None:
    report = FaultRun(engine, kills=10, seed=1).run()
    assert report.violations == []
    assert len(report.kills) == 10
    assert all(kill.recovered is not None for kill in report.kills)
    assert report.jobs >= 12
