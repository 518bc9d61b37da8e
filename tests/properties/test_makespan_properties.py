"""How soon all is done: near the least possible time on labs and workloads of all shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from quality import SMALL, name_of, skewed, small

from lab.hosts.outcome import summarize
from lab.hosts.simulation import simulate


@pytest.mark.parametrize("seed", range(4))
def test_all_is_done_within_five_hundredths_of_the_least_possible_time(seed: int) -> None:
    """Queues of fifty jobs a host: what ends last is then a small part of the whole."""
    scenario = skewed(seed, hosts=20, per_host=50)
    assert 1 <= summarize(scenario, simulate(scenario)).ratio <= 1.05


def test_small_labs_are_done_nearly_as_soon_as_is_possible() -> None:
    """Against optima proved by CP-SAT (tests/benchmarks/test_optimum.py records them)."""
    recorded = json.loads((Path(__file__).resolve().parents[1] / "golden" / "optima.json").read_text(encoding="utf-8"))
    labs = [lab for lab in SMALL if name_of(lab) in recorded]
    ratios = [summarize(small(*lab), simulate(small(*lab))).makespan / recorded[name_of(lab)] for lab in labs]
    assert len(ratios) >= 60
    assert min(ratios) >= 1
    assert sum(ratios) / len(ratios) <= 1.03
    assert sum(ratio <= 1.1 for ratio in ratios) >= 0.95 * len(ratios)
