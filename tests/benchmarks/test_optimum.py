"""Makespans beside what is possible: the optima that CP-SAT proves for small labs, the lower bound for larger ones.

pytest tests/benchmarks/test_optimum.py -m benchmark -s    (the first needs OR-Tools: pip install -e '.[compare]')
WRITE=1 records the optima, which the ordinary tests hold the planner against.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from quality import SMALL, name_of, skewed, small

from lab.hosts.outcome import summarize
from lab.hosts.simulation import simulate

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

RECORDED = Path(__file__).resolve().parents[1] / "golden" / "optima.json"


def test_the_recorded_optima_are_those_of_the_solver() -> None:
    optimum = pytest.importorskip("optimum", reason="OR-Tools is not installed", exc_type=ImportError)
    found = {name_of(lab): optimum.least_makespan(small(*lab)) for lab in SMALL}
    found = {name: best for name, best in found.items() if best is not None}
    if os.environ.get("WRITE"):
        RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert {name: best for name, best in found.items() if name in recorded} == {
        name: best for name, best in recorded.items() if name in found
    }
    ratios = sorted(
        summarize(small(*lab), simulate(small(*lab))).makespan / found[name_of(lab)]
        for lab in SMALL
        if name_of(lab) in found
    )
    within = sum(ratio <= 1.1 for ratio in ratios)
    mean = sum(ratios) / len(ratios)
    print(f"\n{len(ratios)} optima: mean {mean:.3f}, largest {ratios[-1]:.3f}, {within} within a tenth")


@pytest.mark.parametrize(("hosts", "per_host"), [(20, 50), (40, 100), (100, 100)])
def test_larger_labs_are_done_near_the_lower_bound(hosts: int, per_host: int) -> None:
    scenarios = [skewed(seed, hosts=hosts, per_host=per_host) for seed in range(6)]
    ratios = [summarize(scenario, simulate(scenario)).ratio for scenario in scenarios]
    print(f"\n{hosts} hosts x {per_host} jobs: " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    assert max(ratios) <= 1.05
