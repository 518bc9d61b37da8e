"""How soon all is done: near the least possible time on labs and workloads of all shapes."""

from __future__ import annotations

import pytest
from quality import skewed

from lab.hosts.outcome import summarize
from lab.hosts.simulation import simulate


@pytest.mark.parametrize("seed", range(4))
def test_all_is_done_within_five_hundredths_of_the_least_possible_time(seed: int) -> None:
    """Queues of fifty jobs a host: what ends last is then a small part of the whole."""
    scenario = skewed(seed, hosts=20, per_host=50)
    assert 1 <= summarize(scenario, simulate(scenario)).ratio <= 1.05
