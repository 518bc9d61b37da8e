"""Makespans beside what is possible: CP-SAT's optimum on small labs, the lower bound on larger ones of all shapes.

pytest tests/benchmarks/test_optimum.py -m benchmark -s    (needs OR-Tools: pip install ortools)
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from quality import skewed

from lab.hosts.durations import Estimate
from lab.hosts.outcome import summarize
from lab.hosts.simulation import Scenario, simulate

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]


def small(seed: int, hosts: int, per_host: int, gangs: float) -> Scenario:
    """One tenant's jobs, all there at the start, that take as long as is expected, in whole tens of seconds."""
    scenario = skewed(seed, hosts=hosts, per_host=per_host, gangs=gangs, tenants=1)
    jobs = []
    for job in scenario.jobs:
        seconds = float(round(job.seconds / 10))
        request = replace(job.request, estimate=Estimate(p50_s=seconds, p90_s=seconds))
        jobs.append(replace(job, request=request, seconds=seconds))
    return replace(scenario, jobs=jobs)


def test_small_labs_are_done_nearly_as_soon_as_is_possible() -> None:
    optimum = pytest.importorskip("optimum", reason="OR-Tools is not installed", exc_type=ImportError)
    ratios = []
    for hosts, per_host in ((3, 4), (4, 3), (5, 3), (6, 2)):
        for gangs in (0.1, 0.3):
            found = []
            for seed in range(10):
                scenario = small(seed, hosts, per_host, gangs)
                best = optimum.least_makespan(scenario)
                if best is not None:
                    found.append(summarize(scenario, simulate(scenario)).makespan / best)
            told = " ".join(f"{ratio:.2f}" for ratio in found)
            print(f"\n{hosts} hosts x {per_host} jobs, {gangs:.0%} gangs: {told}", end="")
            ratios += found
    ratios.sort()
    within = sum(ratio <= 1.1 for ratio in ratios)
    mean = sum(ratios) / len(ratios)
    print(f"\n{len(ratios)} optima: mean {mean:.3f}, largest {ratios[-1]:.3f}, {within} within a tenth")
    assert mean <= 1.05
    assert within >= 0.9 * len(ratios)


@pytest.mark.parametrize(("hosts", "per_host"), [(20, 50), (40, 100), (100, 100)])
def test_larger_labs_are_done_near_the_lower_bound(hosts: int, per_host: int) -> None:
    scenarios = [skewed(seed, hosts=hosts, per_host=per_host) for seed in range(6)]
    ratios = [summarize(scenario, simulate(scenario)).ratio for scenario in scenarios]
    print(f"\n{hosts} hosts x {per_host} jobs: " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    assert max(ratios) <= 1.05
