"""A lab that may run two of its hosts at once: who gets a place, and who is powered off for it."""

from __future__ import annotations

from typing import Any

import pytest

from lab.errors import ConfigError
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.planner import Plan, Request, RoleRequest, check_possible, plan
from lab.hosts.slots import Limit

TWO = Limit(hosts=frozenset({"h1", "h2", "h3", "h4"}), running=2)


def host(name: str, state: HostState = HostState.FREE, *, ready: bool = False, **more: Any) -> Host:
    """A host that is off, or stands ready for flight 9."""
    setup = {"setup_key": f"key-{name}", "setup_flight": 9} if ready else {}
    return Host(name=name, arch="x86_64", state=state, **setup, **more)


def wants(number: int, *names: str, flight: int | None = None, key: str | None = None) -> Request:
    roles = tuple(
        RoleRequest(role=f"on-{name}", requirement=Requirement(f'name == "{name}"'), setup_key=key) for name in names
    )
    return Request(id=f"{number}.job", order=number, roles=roles, flight=flight)


def decided(hosts: list[Host], *queue: Request, limit: Limit = TWO) -> tuple[list[str], tuple[str, ...]]:
    made: Plan = plan(hosts, queue, limit=limit)
    return [assignment.request for assignment in made.start], made.power_off


READY1, READY2, OFF3, OFF4 = host("h1", ready=True), host("h2", ready=True), host("h3"), host("h4")


def test_a_host_that_stands_ready_makes_room() -> None:
    assert decided([READY1, READY2, OFF3], wants(1, "h3")) == ([], ("h1",))


def test_one_that_is_being_powered_off_is_room_enough_but_still_runs() -> None:
    assert decided([host("h1", HostState.CLEANING), READY2, OFF3], wants(1, "h3")) == ([], ())
    assert decided([host("h1"), READY2, OFF3], wants(1, "h3")) == (["1.job"], ())


def test_nobody_behind_takes_a_place_that_somebody_waits_for() -> None:
    held = [host("h1", HostState.LEASED), host("h2", HostState.LEASED)]
    first, second = wants(1, "h3"), wants(2, "h4")
    assert decided([*held, OFF3, OFF4], first, second) == ([], ())
    assert decided([READY1, held[1], OFF3, OFF4], first, second) == ([], ("h1",))
    assert decided([host("h1"), held[1], OFF3, OFF4], first, second) == (["1.job"], ())


def test_nobody_behind_takes_the_second_place_of_a_pair() -> None:
    hosts = [host("h1", HostState.LEASED), host("h2"), OFF3]
    assert decided(hosts, wants(1, "h1", "h2"), wants(2, "h3")) == ([], ())
    assert decided(hosts, wants(2, "h3")) == (["2.job"], ())


def test_one_that_runs_already_needs_no_place() -> None:
    assert decided([READY1, READY2, OFF3], wants(1, "h3"), wants(2, "h2")) == (["2.job"], ("h1",))


def test_a_host_that_a_sister_could_use_is_powered_off_last() -> None:
    sister = wants(2, "h1", "h4", flight=9, key="key-h1")
    hosts = [READY1, READY2, OFF3, host("h4", HostState.LEASED, health=Health.GOOD)]
    three = Limit(hosts=TWO.hosts, running=3)
    assert decided(hosts, wants(1, "h3", flight=9), sister, limit=three) == ([], ("h2",))


def test_a_host_that_a_person_looks_at_is_left_alone_and_one_out_of_use_is_not() -> None:
    looked_at = host("h1", ready=True, health=Health.MAINTENANCE)
    assert decided([looked_at, READY2, OFF3], wants(1, "h3")) == ([], ("h2",))
    broken = host("h1", ready=True, health=Health.QUARANTINED)
    assert decided([broken, READY2, OFF3], wants(1, "h3")) == ([], ("h1",))


def test_hosts_outside_the_limit_do_not_count() -> None:
    assert decided([READY1, READY2, host("real")], wants(1, "real")) == (["1.job"], ())


def test_more_hosts_than_may_run_are_impossible_and_say_so() -> None:
    hosts = [host("h1"), host("h2"), OFF3]
    [waits] = plan(hosts, [wants(1, "h1", "h2", "h3")], limit=TWO).waiting
    assert not waits.possible
    assert waits.reason == "needs 3 hosts at one time, which is more than the lab lets run at once"
    with pytest.raises(ConfigError, match="more than the lab lets run"):
        check_possible(wants(1, "h1", "h2", "h3"), hosts, TWO)
