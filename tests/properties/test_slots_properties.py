"""A lab that may run only so many of its hosts at once: never more, and nobody waits for ever."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from strategies import labs, queues

from lab.hosts.model import Host, HostState, Requirement
from lab.hosts.planner import DEFAULT_POLICY, Plan, Request, RoleRequest, plan
from lab.hosts.slots import Limit, runs

# Labs where little stands in a job's way but the limit.
_HOSTS = [f"h{number}" for number in range(1, 5)]
_STANDS = st.sampled_from([
    {}, {"setup_key": "k1", "setup_flight": 1}, {"setup_key": "k2", "setup_flight": 2},
    {"state": HostState.LEASED}, {"state": HostState.CLEANING},
])  # fmt: skip
busy_labs = st.lists(_STANDS, min_size=len(_HOSTS), max_size=len(_HOSTS)).map(
    lambda stands: [Host(name=name, arch="x86_64", **stand) for name, stand in zip(_HOSTS, stands, strict=True)]
)
_roles = st.builds(
    RoleRequest,
    role=st.just("host"),
    requirement=st.sampled_from([Requirement(), *(Requirement(f'name == "{name}"') for name in _HOSTS)]),
    setup_key=st.sampled_from([None, "k1", "k2"]),
)
_jobs = st.lists(_roles, min_size=1, max_size=2).map(
    lambda roles: tuple(replace(role, role=f"role{number}") for number, role in enumerate(roles))
)
busy_queues = st.lists(st.tuples(_jobs, st.sampled_from([None, 1, 2])), min_size=1, max_size=6).map(
    lambda jobs: [
        Request(id=f"{number}.job", order=number, roles=roles, flight=flight)
        for number, (roles, flight) in enumerate(jobs)
    ]
)


def limits(lab: list[Host], most: int, *, all_of_it: bool = False) -> Limit:
    """A limit on all hosts but every third one, or on all."""
    counted = frozenset(host.name for place, host in enumerate(lab) if all_of_it or place % 3)
    return Limit(hosts=counted, running=most)


def running(lab: dict[str, Host], limit: Limit) -> int:
    return sum(runs(host) for host in lab.values() if host.name in limit.hosts)


def planned(lab: dict[str, Host], queue: list[Request], limit: Limit | None) -> Plan:
    return plan(lab.values(), queue, DEFAULT_POLICY, limit=limit)


def carry_out(decided: Plan, lab: dict[str, Host], queue: list[Request]) -> None:
    """What services do with a plan: lease hosts, and have others powered off."""
    for assignment in decided.start:
        for name in assignment.hosts.values():
            assert lab[name].state is HostState.FREE
            lab[name] = replace(lab[name], state=HostState.LEASED, setup_key=None, setup_flight=None)
    for name in decided.power_off:
        assert lab[name].state is HostState.FREE
        lab[name] = replace(lab[name], state=HostState.CLEANING, setup_key=None, setup_flight=None)
    gone = {assignment.request for assignment in decided.start}
    queue[:] = [request for request in queue if request.id not in gone]


def something_ends(lab: dict[str, Host], chance: random.Random) -> bool:
    """One host that is held is given back, set up for somebody or to be powered off, or has been powered off."""
    held = [host for host in lab.values() if host.state is not HostState.FREE]
    if not held:
        return False
    host = chance.choice(held)
    if host.state is HostState.CLEANING:
        lab[host.name] = replace(host, state=HostState.FREE)
    elif chance.random() < 0.5:
        key, flight = chance.choice(["k1", "k2"]), chance.choice([1, 2])
        lab[host.name] = replace(host, state=HostState.FREE, setup_key=key, setup_flight=flight)
    else:
        lab[host.name] = replace(host, state=HostState.CLEANING)
    return True


@given(
    st.one_of(busy_labs, labs(low=1)), st.one_of(busy_queues, queues()), st.integers(1, 3), st.booleans(),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_never_do_more_run_than_may_and_everybody_has_a_turn(
    hosts: list[Host], queue: list[Request], most: int, everywhere: bool, chance: random.Random
) -> None:
    lab = {host.name: host for host in hosts}
    limit = limits(hosts, most, all_of_it=everywhere)
    allowed = max(most, running(lab, limit))
    waiting = list(queue)
    while True:
        decided = planned(lab, waiting, limit)
        carry_out(decided, lab, waiting)
        assert running(lab, limit) <= allowed
        allowed = max(most, running(lab, limit))
        if not something_ends(lab, chance) and not decided.start:
            break
    # Nothing runs any more that could end: who still waits could never be served (or hosts out of use have the places).
    stuck = sum(runs(host) for host in lab.values() if host.name in limit.hosts and not host.usable())
    if not stuck:
        assert all(not left.possible for left in planned(lab, waiting, limit).waiting)


@given(labs(), queues())
def test_a_limit_that_is_wide_enough_changes_nothing(hosts: list[Host], queue: list[Request]) -> None:
    lab = {host.name: host for host in hosts}
    assert planned(lab, queue, limits(hosts, len(hosts), all_of_it=True)) == planned(lab, queue, None)


@given(labs(), queues(), st.integers(1, 4))
def test_hosts_are_powered_off_only_for_somebody_who_waits(hosts: list[Host], queue: list[Request], most: int) -> None:
    lab = {host.name: host for host in hosts}
    limit = limits(hosts, most)
    decided = planned(lab, queue, limit)
    if decided.power_off:
        assert any("waiting for a place" in waits.reason for waits in decided.waiting)
        assert all(lab[name].setup_key is not None and name in limit.hosts for name in decided.power_off)


@given(labs(low=1), queues(low=1), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(
    hosts: list[Host], queue: list[Request], most: int, chance: random.Random
) -> None:
    limit = limits(hosts, most)
    mixed_hosts, mixed_queue = list(hosts), list(queue)
    chance.shuffle(mixed_hosts)
    chance.shuffle(mixed_queue)
    assert plan(mixed_hosts, mixed_queue, limit=limit) == plan(hosts, queue, limit=limit)
