"""Whose turn it is: what holds for every queue, in whatever order it was filled, and what a flood costs others."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from strategies import queues

from lab.hosts.durations import Estimate
from lab.hosts.fair import FairQueue, charge_of
from lab.hosts.model import Requirement
from lab.hosts.request import Request, RoleRequest, kind_of

tenants = st.sampled_from(["ann", "bob", "cron"])


@st.composite
def tenant_queues(draw: st.DrawFn) -> list[Request]:
    seconds = st.floats(1, 1000)
    return [
        replace(
            request,
            tenant=draw(tenants),
            priority=draw(st.integers(-1, 1)),
            estimate=Estimate(p50_s=draw(seconds), p90_s=1000),
        )
        for request in draw(queues(high=12))
    ]


usages = st.dictionaries(tenants, st.floats(0, 1e4))


def filled(requests: list[Request], **shares: float) -> FairQueue:
    queue = FairQueue(shares=shares)
    for request in requests:
        queue.put(request)
    return queue


@given(tenant_queues(), usages, st.randoms(use_true_random=False))
def test_everybody_has_one_turn_and_the_order_of_coming_in_does_not_matter(
    requests: list[Request], used: dict[str, float], chance: random.Random
) -> None:
    turns = [request.id for request in filled(requests).in_turn(used)]
    assert sorted(turns) == sorted(request.id for request in requests)
    mixed = list(requests)
    chance.shuffle(mixed)
    assert [request.id for request in filled(mixed).in_turn(used)] == turns


@given(tenant_queues(), usages)
def test_priorities_come_one_after_the_other_and_a_tenants_own_requests_by_age(
    requests: list[Request], used: dict[str, float]
) -> None:
    turns = list(filled(requests).in_turn(used))
    assert [request.priority for request in turns] == sorted(request.priority for request in turns)
    for tenant in {request.tenant for request in turns}:
        mine = [(one.priority, one.order, one.id) for one in turns if one.tenant == tenant]
        assert mine == sorted(mine)


@given(tenant_queues(), usages, st.integers(1, 3))
def test_the_first_turns_of_each_kind_are_found_without_the_others(
    requests: list[Request], used: dict[str, float], most: int
) -> None:
    """Where there is one kind only; with several, a kind that is used up costs its tenant no more time."""
    alike = [replace(request, roles=(), lane="x") for request in requests]
    queue = filled(alike)
    assert list(queue.in_turn(used, lambda _kind: most)) == list(queue.in_turn(used))[:most]
    several = filled(requests)
    counts = Counter(kind_of(request) for request in several.in_turn(used, lambda _kind: most))
    assert all(counts[kind] == min(most, sum(kind_of(one) == kind for one in requests)) for kind in counts)
    assert counts.keys() == several.samples().keys()


@given(tenant_queues(), usages)
def test_what_is_ending_overtakes_in_its_own_flight_only(requests: list[Request], used: dict[str, float]) -> None:
    requests = [replace(request, flight=number % 3, priority=0) for number, request in enumerate(requests)]
    turns = list(filled(requests).in_turn(used, ending=lambda _kind: True))
    assert sorted(request.id for request in turns) == sorted(request.id for request in requests)
    for tenant in {request.tenant for request in turns}:
        mine = [(one.flight, -one.estimate.p50_s) for one in turns if one.tenant == tenant]
        assert mine == sorted(mine), "the longest of the oldest flight first"


@given(tenant_queues(), st.data())
def test_who_is_dropped_leaves_no_trace(requests: list[Request], data: st.DataObject) -> None:
    gone = set(data.draw(st.lists(st.sampled_from([one.id for one in requests]) if requests else st.nothing())))
    queue = filled(requests)
    for request_id in gone:
        queue.drop(request_id)
    kept = filled([request for request in requests if request.id not in gone])
    assert queue == kept


def one(number: int, tenant: str, seconds: float) -> Request:
    roles = (RoleRequest(role="host", requirement=Requirement("hvm")),)
    estimate = Estimate(p50_s=seconds, p90_s=seconds)
    return Request(id=f"{number}.{tenant}", order=number, roles=roles, tenant=tenant, estimate=estimate)


@given(
    st.integers(0, 300), st.integers(1, 20), st.floats(1, 100), st.floats(1, 100), st.sampled_from([0.5, 1.0, 2.0, 4.0])
)
def test_a_flood_delays_another_tenant_by_no_more_than_its_share(
    many: int, few: int, flood_s: float, small_s: float, share: float
) -> None:
    """Before the n-th request of the small tenant at most n/share as much time of the flood's is spent, and a job."""
    flood = [one(number, "flood", flood_s) for number in range(many)]
    small = [one(10_000 + number, "small", small_s) for number in range(few)]
    turns = list(filled([*flood, *small], small=share).in_turn({"flood": 1000.0, "small": 1000.0 * share}))
    spent = {"flood": 0.0, "small": 0.0}
    for request in turns:
        if request.tenant == "small":
            assert spent["flood"] <= spent["small"] / share + flood_s + 1e-6
        spent[request.tenant] += charge_of(request)


def test_a_priority_whose_oldest_has_waited_long_shares_with_the_more_urgent() -> None:
    urgent = [replace(one(number, "ann", 10), priority=-1, submitted=1000.0) for number in range(100)]
    old = [replace(one(200 + number, "bob", 10), submitted=10.0) for number in range(3)]
    new = [replace(one(300 + number, "eve", 10), submitted=1000.0) for number in range(3)]
    queue = FairQueue(ageing_s=500.0)
    for request in [*urgent, *old, *new]:
        queue.put(request)
    assert {request.tenant for request in list(queue.in_turn({}, now=509.0))[:100]} == {"ann"}
    turns = [request.tenant for request in queue.in_turn({}, now=1000.0)]
    assert turns[:9] == ["ann", "bob", "eve"] * 3, "and nobody's flood gets in front of eve's by growing old"
    for request in old:
        queue.drop(request.id)
    assert {request.tenant for request in list(queue.in_turn({}, now=1000.0))[:100]} == {"ann"}


@given(st.integers(0, 40), st.integers(1, 3))
def test_nothing_waits_for_ever_behind_more_urgent_work(rounds: int, below: int) -> None:
    """Urgent requests come one after the other; one that is less urgent is served after its wait for each priority."""
    queue = FairQueue(ageing_s=100.0)
    queue.put(replace(one(1, "bob", 10), priority=below, submitted=1.0))
    for number in range(rounds):
        now = 1.0 + number * 10.0
        queue.put(replace(one(10 + number, "ann", 10), submitted=now))
        served = next(iter(queue.in_turn({"ann": now}, now=now)))
        queue.drop(served.id)
        if served.tenant == "bob":
            assert now - 1.0 >= 100 * below
            return
    assert rounds * 10.0 <= 100 * below + 10


def test_who_has_used_less_goes_first_until_it_has_caught_up() -> None:
    requests = [one(number, "ann", 10) for number in range(20)] + [one(100 + number, "bob", 10) for number in range(20)]
    turns = [request.tenant for request in filled(requests).in_turn({"ann": 50.0})]
    assert turns[:5] == ["bob"] * 5
    assert Counter(turns[5:15]) == {"ann": 5, "bob": 5}
    assert math.isclose(turns.count("ann"), 20)
