"""The planner: what holds for every lab and every queue.

A job whose hosts all stand ready goes first, whoever waits; what is said about turns holds among the others, so those
tests have labs where nothing is set up.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from strategies import hosts, labs, queues, requests

from lab.hosts.model import Host, HostState, Requirement
from lab.hosts.planner import Plan, Request, RoleRequest, plan
from lab.hosts.slots import Limit


def ordered(queue: list[Request]) -> list[Request]:
    return sorted(queue, key=lambda request: (request.priority, request.order, request.id))


def started(decided: Plan) -> dict[str, dict[str, str]]:
    return {assignment.request: dict(assignment.hosts) for assignment in decided.start}


@given(labs(), queues())
def test_each_request_starts_or_waits_and_none_twice(lab: list[Host], queue: list[Request]) -> None:
    decided = plan(lab, queue)
    told = [assignment.request for assignment in decided.start] + [waiting.request for waiting in decided.waiting]
    assert sorted(told) == sorted(request.id for request in queue)
    assert all(waiting.reason and "\n" not in waiting.reason for waiting in decided.waiting)


@given(labs(), queues())
def test_no_host_is_given_twice_and_only_free_usable_ones_are(lab: list[Host], queue: list[Request]) -> None:
    given_out = [name for chosen in started(plan(lab, queue)).values() for name in chosen.values()]
    assert len(given_out) == len(set(given_out))
    by_name = {host.name: host for host in lab}
    assert all(by_name[name].state is HostState.FREE and by_name[name].usable() for name in given_out)


@given(labs(), queues())
def test_a_gang_gets_a_fitting_host_for_every_role_or_nothing(lab: list[Host], queue: list[Request]) -> None:
    by_name, by_id = {host.name: host for host in lab}, {request.id: request for request in queue}
    for assignment in plan(lab, queue).start:
        roles = by_id[assignment.request].roles
        chosen = {role: by_name[name] for role, name in assignment.hosts.items()}
        assert set(chosen) == {role.role for role in roles}
        assert all(role.requirement.matches(chosen[role.role]) for role in roles)
        for name in {role.equivalent for role in roles if role.equivalent}:
            peers = [chosen[role.role] for role in roles if role.equivalent == name]
            common = frozenset.intersection(*(peer.flags for peer in peers))
            assert len(peers) == 1 or any(flag.startswith("equiv-") for flag in common)


@given(labs(), queues(), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(lab: list[Host], queue: list[Request], chance: random.Random) -> None:
    mixed_lab, mixed_queue = list(lab), list(queue)
    chance.shuffle(mixed_lab)
    chance.shuffle(mixed_queue)
    assert plan(mixed_lab, mixed_queue) == plan(lab, queue)


@given(labs())
def test_an_empty_queue_gives_an_empty_plan(lab: list[Host]) -> None:
    assert plan(lab, []) == Plan()


@given(labs(), requests(), st.integers(2, 4))
def test_of_equal_requests_the_oldest_are_served(lab: list[Host], request: Request, count: int) -> None:
    queue = [replace(request, id=f"{number}.job", order=number) for number in range(count)]
    decided = plan(lab, queue)
    assert {assignment.request for assignment in decided.start} == {one.id for one in queue[: len(decided.start)]}


@given(labs(ready=False), queues(low=1), hosts(name="h9", ready=False))
def test_another_host_never_delays_the_first_in_line(lab: list[Host], queue: list[Request], more: Host) -> None:
    first = ordered(queue)[0].id
    if first in started(plan(lab, queue)):
        assert first in started(plan([*lab, more], queue))


@given(labs(ready=False), queues(low=1), requests(id_="9.job"))
def test_a_request_behind_the_others_changes_nothing_for_them(
    lab: list[Host], queue: list[Request], last: Request
) -> None:
    before = started(plan(lab, queue))
    after = started(plan(lab, [*queue, replace(last, priority=9)]))
    assert {request: chosen for request, chosen in after.items() if request != last.id} == before


@given(labs(low=2, ready=False), requests(id_="0.gang"), queues())
def test_a_blocked_gang_keeps_every_free_host_it_could_use(
    lab: list[Host], gang: Request, queue: list[Request]
) -> None:
    gang = replace(gang, priority=-1)
    decided = plan(lab, [gang, *queue])
    blocked = [waiting for waiting in decided.waiting if waiting.request == gang.id and waiting.possible]
    if blocked:
        by_name = {host.name: host for host in lab}
        for chosen in started(decided).values():
            for name in chosen.values():
                assert not any(role.requirement.matches(by_name[name]) for role in gang.roles)


@given(labs(), queues())
def test_a_request_is_impossible_iff_it_waits_even_with_all_usable_hosts_free(
    lab: list[Host], queue: list[Request]
) -> None:
    all_free = [replace(host, state=HostState.FREE) for host in lab]
    for waiting in plan(lab, queue).waiting:
        alone = next(request for request in queue if request.id == waiting.request)
        assert waiting.possible == bool(plan(all_free, [alone]).start)


@given(labs(), requests())
def test_an_avoided_host_is_taken_only_when_the_others_do_not_do(lab: list[Host], request: Request) -> None:
    chosen = started(plan(lab, [request])).get(request.id, {})
    if set(chosen.values()) & request.avoid:
        others = [host for host in lab if host.name not in request.avoid]
        assert not plan(others, [replace(request, roles=request.roles)]).start


@given(labs(low=1), queues(), requests(id_="9.job", order=9))
def test_a_job_whose_host_stands_ready_overtakes_its_sisters_and_nobody_else(
    lab: list[Host], queue: list[Request], late: Request
) -> None:
    role = RoleRequest(role="host", requirement=Requirement("mine"), setup_key="mine")
    late = replace(late, roles=(role,), flight=9, priority=0, avoid=frozenset())
    ready = Host(name="h9", arch="x86_64", flags=frozenset({"mine"}), setup_key="mine", setup_flight=9)
    sisters = [replace(request, flight=9, priority=0) for request in queue]
    assert started(plan([*lab, ready], [*sisters, late]))[late.id] == {"host": "h9"}
    older = Request(
        id="0.older", order=-1, flight=1, roles=(RoleRequest(role="host", requirement=Requirement("mine")),)
    )
    assert started(plan([*lab, ready], [older, *sisters, late]))[older.id] == {"host": "h9"}


@given(labs(), queues())
def test_reused_hosts_are_set_up_for_this_flight_with_this_key(lab: list[Host], queue: list[Request]) -> None:
    by_name, by_id = {host.name: host for host in lab}, {request.id: request for request in queue}
    for assignment in plan(lab, queue).start:
        request = by_id[assignment.request]
        for role in request.roles:
            host = by_name[assignment.hosts[role.role]]
            same = role.setup_key is not None and host.setup_key == role.setup_key
            mine = request.flight is not None and host.setup_flight == request.flight
            assert (role.role in assignment.reused) == (same and mine)


@given(labs(), queues())
def test_the_quick_choice_of_hosts_is_the_thorough_one(lab: list[Host], queue: list[Request]) -> None:
    """With a limit that limits nothing, all combinations of hosts are tried."""
    everything = Limit(hosts=frozenset(host.name for host in lab), running=99)
    quick, thorough = plan(lab, queue), plan(lab, queue, limit=everything)
    assert quick.start == thorough.start
    assert [(one.request, one.possible) for one in quick.waiting] == [
        (one.request, one.possible) for one in thorough.waiting
    ]


@given(labs(), queues(), st.floats(-1, 5000))
def test_a_host_that_is_promised_goes_only_to_who_ends_in_time(
    lab: list[Host], queue: list[Request], left: float
) -> None:
    by_id = {request.id: request for request in queue}
    promised = {host.name: left for host in lab[::2]}
    for assignment in plan(lab, queue, left=promised).start:
        for name in assignment.hosts.values():
            assert promised.get(name, 1e9) >= by_id[assignment.request].estimate.p90_s
