"""Labs and workloads made up from a seed: hosts of several classes, flights of jobs that ask for them. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.hosts.durations import Estimate
from lab.hosts.model import Host, Requirement
from lab.hosts.request import Request, RoleRequest
from lab.hosts.simulation import SimulatedJob

ASKED: Sequence[tuple[str, float]] = (
    ('arch == "x86_64"', 40),
    ('arch == "x86_64" and hvm', 20),
    ('arch == "arm64"', 17),
    ("smp", 6),
    ('arch == "x86_64" and iommu', 7),
    ("", 10),
)
"""What jobs ask for, and how many in a hundred do."""

_LENGTHS = (240.0, 300.0, 420.0, 600.0, 900.0, 1500.0)
"""What a test usually takes, in seconds."""

_TESTS = 60
"""Tests that jobs run, each with a length of its own."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is made up: how many there are of each, and over how many hours the flights come."""

    hosts: int = 20
    jobs: int = 1000
    tenants: int = 20
    flight_jobs: int = 50
    gangs: float = 0.05
    """the part of the jobs that needs a pair of hosts that are alike"""
    spread: float = 0.2
    """of what a test takes: the standard deviation of its logarithm"""
    over_h: float = 0.0


def a_lab(shape: Shape, seed: int) -> list[Host]:
    """Four in five are x86; half of those run HVM guests, some have an IOMMU or several processors. Alike in sevens."""
    chance = random.Random(f"lab {seed}")  # noqa: S311 - made up, and to be made up again
    found = []
    for number in range(shape.hosts):
        arm = number % 5 == 4
        flags = {f"equiv-{'arm' if arm else 'x86'}-{number // 5 % max(1, shape.hosts // 35)}"}
        flags |= {"hvm"} if not arm and number % 5 != 0 else set()
        flags |= {"iommu"} if not arm and number % 10 in (1, 3, 7) else set()
        flags |= {"smp"} if number % 3 == 0 or chance.random() < 0.1 else set()
        found.append(Host(name=f"h{number:04}", arch="arm64" if arm else "x86_64", flags=frozenset(flags)))
    return found


def a_workload(
    shape: Shape, seed: int, hosts: Sequence[Host], asks: Sequence[tuple[str, float]] = ASKED
) -> list[SimulatedJob]:
    """Flights of tenants, some of whom want much more than others; nothing that the hosts could never serve.

    `asks` are requirements and how often each is asked for.
    """
    chance = random.Random(f"jobs {seed}")  # noqa: S311
    asked = [(Requirement(text), weight) for text, weight in asks]
    asked = [(one, weight) for one, weight in asked if any(map(one.matches, hosts))]
    paired = {one for one, _weight in asked if _pair(one, hosts)}
    usual = [chance.choice(_LENGTHS) * chance.uniform(0.8, 1.2) for _ in range(_TESTS)]
    wanted = [chance.choices(asked, [weight for _one, weight in asked])[0][0] for _ in range(_TESTS)]
    weights = [1 / (1 + number) ** 0.5 for number in range(shape.tenants)]
    wide = math.exp(1.2816 * shape.spread)
    found: list[SimulatedJob] = []
    tenant, comes = "", 0.0
    for number in range(shape.jobs):
        flight, position = divmod(number, shape.flight_jobs)
        if position == 0:
            tenant = f"tenant{chance.choices(range(shape.tenants), weights)[0]:02}"
            comes = chance.uniform(0, shape.over_h * 3600)
        test = chance.randrange(_TESTS)
        gang = chance.random() < shape.gangs and wanted[test] in paired
        roles = ("src", "dst") if gang else ("host",)
        length = usual[test]
        request = Request(
            id=f"{flight + 1}.test-{test:02}-{position}",
            order=(flight + 1) * 100_000 + position,
            roles=tuple(
                RoleRequest(role=role, requirement=wanted[test], equivalent="pair" if gang else None) for role in roles
            ),
            flight=flight + 1,
            tenant=tenant,
            submitted=comes,
            estimate=Estimate(p50_s=length, p90_s=length * wide),
        )
        found.append(SimulatedJob(request=request, seconds=length * math.exp(chance.gauss(0, shape.spread))))
    return found


def _pair(requirement: Requirement, hosts: Sequence[Host]) -> bool:
    """Whether two hosts that match are alike."""
    seen: set[str] = set()
    for host in hosts:
        if requirement.matches(host):
            alike = {flag for flag in host.flags if flag.startswith("equiv-")}
            if alike & seen:
                return True
            seen |= alike
    return False
