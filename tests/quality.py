"""Labs and workloads of all shapes, to hold the planner against what is possible."""

from __future__ import annotations

import random
from dataclasses import replace

from lab.hosts.durations import Estimate
from lab.hosts.simulation import Scenario
from lab.hosts.workload import ASKED, Shape, a_lab, a_workload


def skewed(seed: int, *, hosts: int, per_host: int, gangs: float = 0.05, tenants: int = 5) -> Scenario:
    """A lab of which some hosts are asked for up to fifteen times as much as is usual for others."""
    chance = random.Random(seed)
    asked = [(text, weight * chance.uniform(0.2, 3)) for text, weight in ASKED]
    shape = Shape(hosts=hosts, jobs=hosts * per_host, tenants=tenants, gangs=gangs)
    lab = a_lab(shape, seed)
    return Scenario(hosts=lab, jobs=a_workload(shape, seed, lab, asked))


SMALL = [
    (hosts, per_host, gangs, seed)
    for hosts, per_host in ((3, 4), (4, 3), (5, 3), (6, 2))
    for gangs in (0.1, 0.3)
    for seed in range(10)
]
"""Labs that are small enough for a solver to prove the optimum."""


def small(hosts: int, per_host: int, gangs: float, seed: int) -> Scenario:
    """One tenant's jobs, all there at the start, that take as long as is expected, in whole tens of seconds."""
    scenario = skewed(seed, hosts=hosts, per_host=per_host, gangs=gangs, tenants=1)
    jobs = []
    for job in scenario.jobs:
        seconds = float(round(job.seconds / 10))
        request = replace(job.request, estimate=Estimate(p50_s=seconds, p90_s=seconds))
        jobs.append(replace(job, request=request, seconds=seconds))
    return replace(scenario, jobs=jobs)


def name_of(lab: tuple[int, int, float, int]) -> str:
    """What a small lab is called among the recorded optima."""
    hosts, per_host, gangs, seed = lab
    return f"{hosts} hosts x {per_host} jobs, {gangs:.0%} gangs, seed {seed}"
