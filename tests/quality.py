"""Labs and workloads of all shapes, to hold the planner against what is possible."""

from __future__ import annotations

import random

from lab.hosts.simulation import Scenario
from lab.hosts.workload import ASKED, Shape, a_lab, a_workload


def skewed(seed: int, *, hosts: int, per_host: int, gangs: float = 0.05, tenants: int = 5) -> Scenario:
    """A lab of which some hosts are asked for up to fifteen times as much as is usual for others."""
    chance = random.Random(seed)
    asked = [(text, weight * chance.uniform(0.2, 3)) for text, weight in ASKED]
    shape = Shape(hosts=hosts, jobs=hosts * per_host, tenants=tenants, gangs=gangs)
    lab = a_lab(shape, seed)
    return Scenario(hosts=lab, jobs=a_workload(shape, seed, lab, asked))
