"""How deciding and projecting grow with the queue: 1,000, 10,000 and 100,000 jobs on 1,000 hosts.

pytest tests/benchmarks/test_scale.py -m benchmark -s
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from statistics import quantiles

import pytest

from lab.hosts.durations import Estimate
from lab.hosts.fair import FairQueue
from lab.hosts.model import Host, HostState, Requirement
from lab.hosts.planner import Request, RoleRequest, plan
from lab.hosts.projection import When, project
from lab.hosts.reasons import reasons

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

HOSTS = 1000
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


def decision(queue: FairQueue, lab: list[Host], freed: int) -> float:
    """Seconds from a host set free to the plan."""
    hosts = [*lab[:freed], replace(lab[freed], state=HostState.FREE), *lab[freed + 1 :]]
    begun = time.perf_counter()
    free = [host for host in hosts if host.state is HostState.FREE]
    samples = queue.samples()
    turns = queue.in_turn(
        {},
        lambda kind: 1 + sum(any(role.requirement.matches(host) for role in samples[kind].roles) for host in free),
    )
    decided = plan(hosts, [replace(request, order=turn) for turn, request in enumerate(turns)])
    took = time.perf_counter() - begun
    for assignment in decided.start:
        queue.drop(assignment.request)
    return took


def test_how_deciding_and_projecting_grow() -> None:
    middles = []
    for count in (1_000, 10_000, 100_000):
        chance = random.Random(1)
        lab, requests = a_lab(chance), a_queue(count, chance)
        queue = FairQueue()
        for request in requests:
            queue.put(request)
        begun = time.perf_counter()
        back = {host.name: When(p50=1000 + chance.random() * 500, p90=2000) for host in lab}
        turns = list(queue.in_turn({}))
        expected = project(1000, turns, lab, back=back)
        projecting = time.perf_counter() - begun
        begun = time.perf_counter()
        assert len(reasons(1000, turns, lab, possible=expected.keys(), for_place={})) == count
        explaining = time.perf_counter() - begun
        times = quantiles([decision(queue, lab, chance.randrange(HOSTS)) for _ in range(200)], n=100)
        middles.append(times[49])
        print(
            f"\n{count:7,} jobs, {HOSTS:,} hosts: decision {times[49] * 1000:.1f} ms (p50), {times[98] * 1000:.1f} ms "
            f"(p99); projection {projecting:.2f} s, reasons {explaining:.2f} s; load {os.getloadavg()[0]:.1f}"
        )
    assert middles[-1] < 3 * middles[0], "a hundred times the queue is not much more work"
