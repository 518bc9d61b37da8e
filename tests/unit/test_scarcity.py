"""Scarce hosts: who leaves them to whom."""

from __future__ import annotations

from dataclasses import replace

from factories import a_host

from lab.hosts.allocator import Allocator
from lab.hosts.durations import Estimate
from lab.hosts.model import HostState, Requirement
from lab.hosts.request import Request, RoleRequest

ARM = 'arch == "arm64"'


def request(name: str, requires: str = "", *, seconds: float = 100.0, priority: int = 0) -> Request:
    return Request(
        id=name,
        order=int(name.partition(".")[0]),
        roles=(RoleRequest(role="host", requirement=Requirement(requires)),),
        priority=priority,
        estimate=Estimate(p50_s=seconds, p90_s=seconds),
    )


def started(*requests: Request, busy: str = "h2") -> dict[str, str]:
    """Who starts where, of a PC and an arm64 host, one of which is busy."""
    allocator = Allocator()
    for host in (a_host("h1", arch="arm64"), a_host("h2")):
        allocator.fleet.put(replace(host, state=HostState.LEASED if host.name == busy else HostState.FREE))
    for one in requests:
        allocator.put(one)
    return {one.request: one.hosts["host"] for one in allocator.decide(0.0, used={}).start}


def test_work_that_could_run_elsewhere_leaves_a_scarce_host_to_what_cannot() -> None:
    anywhere, arm = request("1.any"), request("2.arm", ARM, seconds=1000)
    assert started(anywhere, arm) == {"2.arm": "h1"}
    assert started(anywhere, arm, busy="") == {"2.arm": "h1", "1.any": "h2"}


def test_a_host_for_which_less_work_waits_than_for_the_others_is_not_scarce() -> None:
    anywhere = [request(f"{number}.any") for number in range(1, 5)]
    assert started(*anywhere, request("9.arm", ARM)) == {"1.any": "h1"}


def test_what_is_more_urgent_leaves_nothing() -> None:
    urgent, arm = request("1.any", priority=-1), request("2.arm", ARM, seconds=1000)
    assert started(urgent, arm) == {"1.any": "h1"}


def test_no_host_stays_free_for_those_who_do_not_come() -> None:
    gang = replace(
        request("2.pair", ARM, seconds=1000), roles=(RoleRequest(role="a", requirement=Requirement(ARM)),) * 2
    )
    roles = (RoleRequest(role="a", requirement=Requirement(ARM)), RoleRequest(role="b", requirement=Requirement(ARM)))
    assert started(request("1.any"), replace(gang, roles=roles)) == {"1.any": "h1"}, "a pair that never can"
