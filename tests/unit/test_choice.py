"""What a host costs a job: each weight of the policy, alone."""

from __future__ import annotations

from dataclasses import fields

import pytest
from factories import a_host

from lab.hosts.choice import Costs, LastRun, Policy, Pool, cheapest
from lab.hosts.fleet import Fleet
from lab.hosts.model import Health, Host
from lab.hosts.request import Request, RoleRequest
from lab.labfile import SchedulerSettings

DAY = 86_400.0
NOW = 1000 * DAY
NONE = Policy(**{one.name: 0.0 for one in fields(Policy)})


def request(**more: object) -> Request:
    roles = (RoleRequest(role="host", setup_key="k"),)
    return Request(id="1.a", order=0, roles=roles, flight=1, **more)  # type: ignore[arg-type]


def cost(weight: str, host: Host, past: dict[str, LastRun] | None = None, **more: object) -> float:
    """What the host costs when only one weight, of 100 s, counts."""
    policy = Policy(**{**NONE.__dict__, weight: 100.0})
    costs = Costs(policy, {"busy": 0.5}, lambda _request: past or {}, NOW)
    one = request(**more)
    return costs(one, one.roles[0], host)


def test_setting_up_and_spoiling_a_set_up_cost() -> None:
    ready = a_host("h", setup_key="k", setup_flight=1)
    others = a_host("h", setup_key="k", setup_flight=2)
    assert (cost("set_up", ready), cost("set_up", others), cost("set_up", a_host("h"))) == (0, 100, 100)
    assert (cost("spoil", ready), cost("spoil", others), cost("spoil", a_host("h"))) == (0, 100, 0)


def test_suspect_avoided_and_wanted_hosts_cost() -> None:
    assert (cost("suspect", a_host("h", health=Health.SUSPECT)), cost("suspect", a_host("h"))) == (100, 0)
    assert (cost("avoid", a_host("h"), avoid=frozenset({"h"})), cost("avoid", a_host("h"))) == (100, 0)
    assert (cost("wanted", a_host("busy")), cost("wanted", a_host("h"))) == (50, 0)


def test_a_job_that_passes_everywhere_goes_where_it_has_not_been_for_long() -> None:
    past = {"now": LastRun(at=NOW, failed=False), "old": LastRun(at=NOW - 9 * DAY, failed=False)}
    assert cost("variation", a_host("now"), past) == 100
    assert cost("variation", a_host("old"), past) == pytest.approx(100 * (1 - 0.51), abs=1)
    assert cost("variation", a_host("new"), past) == 0
    ahead = {"now": LastRun(at=NOW + DAY, failed=False)}
    assert cost("variation", a_host("now"), ahead) == 100, "a clock that went back"


def test_a_job_that_failed_goes_where_it_failed_and_where_it_was() -> None:
    past = {"bad": LastRun(at=NOW, failed=True), "good": LastRun(at=NOW, failed=False)}
    assert [cost("previous_failure", a_host(name), past) for name in ("bad", "good", "new")] == [-100, 0, 0]
    assert [cost("variation", a_host(name), past) for name in ("bad", "good", "new")] == [-100, -100, 0]


def test_the_past_decides_between_equal_hosts_but_a_set_up_goes_before_it() -> None:
    hosts = [a_host("h1"), a_host("h2"), a_host("h3")]

    def chosen(past: dict[str, LastRun], *lab: Host) -> str:
        fleet = Fleet(lab or hosts)
        costs = Costs(past=lambda _request: past, now=NOW)
        found = cheapest(request(), Pool(fleet, fleet.free), costs)
        assert found is not None
        return found["host"].name

    assert chosen({}) == "h1"
    assert chosen({"h1": LastRun(at=NOW, failed=False)}) == "h2"
    assert chosen({"h3": LastRun(at=NOW, failed=True)}) == "h3"
    ready = a_host("h1", setup_key="k", setup_flight=1)
    assert chosen({"h1": LastRun(at=NOW, failed=False)}, ready, *hosts[1:]) == "h1"


def test_the_labs_file_names_every_weight() -> None:
    assert SchedulerSettings().policy == Policy()
    assert SchedulerSettings.model_validate({"weights": {"variation": 1.5}}).policy == Policy(variation=1.5)
