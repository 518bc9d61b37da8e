"""The same work for this planner and for labgrid's scheduler: all hosts free, four requests for each.

pytest tests/benchmarks/test_labgrid.py -m benchmark -s    (needs labgrid: pip install labgrid)
"""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from types import FrameType

import pytest

from lab.hosts.allocator import Allocator
from lab.hosts.model import Host, Requirement
from lab.hosts.request import Request, RoleRequest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

LIMIT_S = 300
"""labgrid's scheduler is given so long."""

TAGS = ("x86", "arm", "hvm", "iommu", "smp")


def the_work(hosts: int, requests: int) -> tuple[list[set[str]], list[set[str]]]:
    """What each host offers and each request asks for, as tags. The same for both."""
    chance = random.Random(1)
    offers = []
    for _ in range(hosts):
        offer = {chance.choices(TAGS[:2], (4, 1))[0]}
        offers.append(offer | {tag for tag in TAGS[2:] if chance.random() < 0.4})
    asked = [{"x86"}, {"x86", "hvm"}, {"arm"}, {"smp"}, {"x86", "iommu"}, set[str]()]
    return offers, [chance.choice(asked) for _ in range(requests)]


def ours(offers: list[set[str]], asks: list[set[str]]) -> tuple[float, dict[str, str]]:
    """Seconds for one decision about all of it, and who got what."""
    allocator = Allocator()
    for number, offer in enumerate(offers):
        allocator.fleet.put(Host(name=f"h{number:04}", arch="x86_64", flags=frozenset(offer)))
    for number, ask in enumerate(asks):
        role = RoleRequest(role="host", requirement=Requirement(" and ".join(sorted(ask))))
        allocator.put(Request(id=f"{number:05}", order=number, roles=(role,)))
    begun = time.perf_counter()
    decided = allocator.decide(0.0, used={})
    took = time.perf_counter() - begun
    return took, {one.request: one.hosts["host"] for one in decided.start}


def labgrids(offers: list[set[str]], asks: list[set[str]]) -> tuple[float | None, dict[str, str]]:
    """The same by labgrid; None when it took longer than the limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = pytest.importorskip("labgrid.remote.scheduler", reason="labgrid is not installed")
    places = [scheduler.TagSet(f"h{number:04}", offer) for number, offer in enumerate(offers)]
    filters = [scheduler.TagSet(f"{number:05}", ask) for number, ask in enumerate(asks)]

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    begun = time.perf_counter()
    try:
        found = scheduler.schedule(places, filters)
    except TimeoutError:
        return None, {}
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return time.perf_counter() - begun, found


@pytest.mark.parametrize(("hosts", "requests"), [(100, 400), (400, 1600), (1000, 4000)])
def test_the_same_work_side_by_side(hosts: int, requests: int) -> None:
    offers, asks = the_work(hosts, requests)
    mine, given = ours(offers, asks)
    for name, host in given.items():
        assert asks[int(name)] <= offers[int(host[1:])]
    assert len(set(given.values())) == len(given)
    theirs, others = labgrids(offers, asks)
    told = f"{theirs:.2f} s for {len(others)}" if theirs is not None else f"more than {LIMIT_S} s"
    times = f", {theirs / mine:.0f} times as long" if theirs is not None else ""
    print(
        f"\n{hosts:,} hosts x {requests:,} requests: {mine:.3f} s for {len(given)} hosts given out; "
        f"labgrid {told}{times}; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    assert theirs is None or (len(given) >= 0.99 * len(others) and mine < theirs)
