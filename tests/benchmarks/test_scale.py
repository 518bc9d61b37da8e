"""How deciding and projecting grow with the queue: 1,000, 10,000 and 100,000 jobs on 1,000 hosts.

pytest tests/benchmarks/test_scale.py -m benchmark -s    (PLOT=docs/decisions.svg draws it)
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from statistics import quantiles

import pytest
from plot import plot

from lab.hosts.allocator import Allocator
from lab.hosts.durations import Estimate
from lab.hosts.model import Host, HostState, Requirement
from lab.hosts.projection import When, project
from lab.hosts.reasons import reasons
from lab.hosts.request import Request, RoleRequest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

HOSTS = 1000
DECISIONS = 500
TARGET_MS, PROJECTION_S = 50.0, 3.0
REQUIREMENTS = [
    Requirement(text) for text in ("", 'arch == "x86_64"', 'arch == "arm64"', "smp", 'arch == "x86_64" and smp')
]


def a_lab(chance: random.Random) -> list[Host]:
    return [
        Host(
            name=f"h{number:04}",
            arch="arm64" if number % 5 == 0 else "x86_64",
            flags=frozenset({f"equiv-{number % 7}"} | ({"smp"} if chance.random() < 0.3 else set())),
            state=HostState.LEASED,
        )
        for number in range(HOSTS)
    ]


def a_queue(count: int, chance: random.Random) -> list[Request]:
    """Twenty tenants, flights of fifty jobs, one in twenty of which needs a pair."""
    found = []
    for number in range(count):
        requirement = chance.choice(REQUIREMENTS)
        names = ("a", "b") if number % 20 == 0 else ("host",)
        alike = "pair" if len(names) > 1 else None
        length = chance.uniform(100, 1000)
        found.append(
            Request(
                id=f"{number}.j",
                order=number,
                roles=tuple(RoleRequest(role=name, requirement=requirement, equivalent=alike) for name in names),
                tenant=f"t{chance.randrange(20)}",
                flight=number // 50,
                estimate=Estimate(p50_s=length, p90_s=2 * length),
            )
        )
    return found


def decision(allocator: Allocator, freed: str, now: float, chance: random.Random) -> float:
    """Seconds from a host set free to the plan."""
    begun = time.perf_counter()
    allocator.runs.end(freed)
    allocator.fleet.put(replace(allocator.fleet.hosts[freed], state=HostState.FREE))
    decided = allocator.decide(now, used=allocator.runs.used(now))
    took = time.perf_counter() - begun
    for assignment in decided.start:
        allocator.drop(assignment.request)
        for name in assignment.hosts.values():
            allocator.fleet.put(replace(allocator.fleet.hosts[name], state=HostState.LEASED))
            length = Estimate(p50_s=chance.uniform(100, 1000), p90_s=2000)
            allocator.runs.begin(name, tenant=f"t{chance.randrange(20)}", hosts=[name], since=now, estimate=length)
    return took


def test_how_deciding_and_projecting_grow() -> None:
    counts, middles, nearly_all = (1_000, 10_000, 100_000), [], []
    projecting = 0.0
    for count in counts:
        chance = random.Random(1)
        lab, requests = a_lab(chance), a_queue(count, chance)
        allocator = Allocator()
        for host in lab:
            allocator.fleet.put(host)
            length = Estimate(p50_s=chance.uniform(100, 1000), p90_s=2000)
            allocator.runs.begin(host.name, tenant="t0", hosts=[host.name], since=900.0, estimate=length)
        for request in requests:
            allocator.put(request)
        begun = time.perf_counter()
        back = {host.name: When(p50=1000 + chance.random() * 500, p90=2000) for host in lab}
        turns = list(allocator.queue.in_turn({}))
        expected = project(1000, turns, lab, back=back)
        projecting = time.perf_counter() - begun
        begun = time.perf_counter()
        assert len(reasons(1000, turns, lab, possible=expected.keys(), for_place={})) == count
        explaining = time.perf_counter() - begun
        times = [
            decision(allocator, f"h{chance.randrange(HOSTS):04}", 1000.0 + number, chance)
            for number in range(DECISIONS)
        ]
        cuts = quantiles(times, n=100)
        middles.append(cuts[49] * 1000)
        nearly_all.append(cuts[98] * 1000)
        print(
            f"\n{count:7,} jobs, {HOSTS:,} hosts: decision {cuts[49] * 1000:.2f} ms (p50), {cuts[98] * 1000:.2f} ms "
            f"(p99); projection {projecting:.2f} s, reasons {explaining:.2f} s; load {os.getloadavg()[0]:.1f}"
        )
    if os.environ.get("PLOT"):
        lines = {"half of them": middles, "99 in 100": nearly_all}
        title = f"A decision, by the jobs that wait ({HOSTS:,} hosts, one set free)"
        Path(os.environ["PLOT"]).write_text(plot(title, counts, lines, "jobs", "ms", limit=TARGET_MS), encoding="utf-8")
    assert middles[-1] < 3 * middles[0], "a hundred times the queue is not much more work"
    assert nearly_all[-1] < TARGET_MS
    if projecting > PROJECTION_S:
        print(f"the projection took longer than {PROJECTION_S} s, which counts only on a quiet machine")
