"""The planner: the decisions people will ask about, one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from factories import PAIR, a_host, trial_catalogue

from lab.errors import ConfigError
from lab.flights.model import Attempt, Job, Runvar
from lab.flights.requests import request_of
from lab.flights.reuse import setup_key
from lab.flights.runvars import Runvars
from lab.flights.status import JobStatus
from lab.hosts.durations import Estimate
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.planner import (
    DEFAULT_POLICY,
    Plan,
    Request,
    RoleRequest,
    check_possible,
    explain_impossible,
    plan,
)
from lab.hosts.slots import Limit


@pytest.fixture(autouse=True)
def _catalogue() -> Iterator[None]:
    with trial_catalogue():
        yield


def request(id_: str, order: int = 0, *roles: RoleRequest, **more: object) -> Request:
    return Request(id=id_, order=order, roles=roles or (RoleRequest(role="host"),), **more)  # type: ignore[arg-type]


def pair(**more: str) -> tuple[RoleRequest, RoleRequest]:
    return RoleRequest(role="src", equivalent="m", **more), RoleRequest(role="dst", equivalent="m", **more)


def hosts_of(decided: Plan, id_: str) -> dict[str, str]:
    return next((dict(one.hosts) for one in decided.start if one.request == id_), {})


def test_a_host_that_is_set_up_already_is_taken_first() -> None:
    lab = [a_host("h1"), a_host("h2", setup_key="k", setup_flight=1)]
    decided = plan(lab, [request("1.a", 0, RoleRequest(role="host", setup_key="k"), flight=1)])
    assert hosts_of(decided, "1.a") == {"host": "h2"}
    assert decided.start[0].reused == {"host"}


def test_a_set_up_of_another_flight_is_not_reused() -> None:
    lab = [a_host("h1"), a_host("h2", setup_key="k", setup_flight=1)]
    decided = plan(lab, [request("2.a", 0, RoleRequest(role="host", setup_key="k"), flight=2)])
    assert hosts_of(decided, "2.a") == {"host": "h1"}, "and that of flight 1 is not spoilt"
    assert decided.start[0].reused == frozenset()


def test_a_suspect_host_is_taken_last_and_one_out_of_use_never() -> None:
    lab = [a_host("h1", health=Health.QUARANTINED), a_host("h2", health=Health.SUSPECT), a_host("h3")]
    decided = plan(lab, [request("1.a", 0), request("1.b", 1), request("1.c", 2)])
    assert (hosts_of(decided, "1.a"), hosts_of(decided, "1.b")) == ({"host": "h3"}, {"host": "h2"})
    assert decided.waiting[0].reason == "waiting for a host kept for a job ahead of it; 2 ahead of it"


def test_an_avoided_host_is_taken_when_there_is_no_other() -> None:
    job = request("1.a", 0, avoid=frozenset({"h1"}))
    assert hosts_of(plan([a_host("h1"), a_host("h2")], [job]), "1.a") == {"host": "h2"}
    assert hosts_of(plan([a_host("h1")], [job]), "1.a") == {"host": "h1"}


def test_jobs_behind_a_blocked_gang_do_not_push_it_back() -> None:
    lab = [a_host("h1"), a_host("h2", state=HostState.LEASED), a_host("h3", "other")]
    decided = plan(
        lab,
        [
            request("1.gang", 0, *pair(requirement=Requirement("hvm"))),  # type: ignore[arg-type]
            request("1.late", 1, RoleRequest(role="host", requirement=Requirement("hvm"))),
            request("1.else", 2, RoleRequest(role="host", requirement=Requirement("other"))),
        ],
    )
    assert hosts_of(decided, "1.else") == {"host": "h3"}
    assert [waiting.reason for waiting in decided.waiting] == ["waiting for h2", "waiting for h2; 1 ahead of it"]


def test_an_impossible_request_keeps_nothing_from_the_others() -> None:
    decided = plan(
        [a_host("h1")],
        [request("1.a", 0, RoleRequest(role="host", requirement=Requirement("hvm and ipmi"))), request("1.b", 1)],
    )
    assert hosts_of(decided, "1.b") == {"host": "h1"}
    assert not decided.waiting[0].possible


def test_a_pair_must_share_an_equivalence() -> None:
    lab = [a_host("h1", "equiv-a"), a_host("h2", "equiv-b"), a_host("h3", "equiv-b", "equiv-c"), a_host("h4")]
    assert hosts_of(plan(lab[:2], [request("1.a", 0, *pair())]), "1.a") == {}
    assert sorted(hosts_of(plan(lab[:3], [request("1.a", 0, *pair())]), "1.a").values()) == ["h2", "h3"]


def test_priority_goes_before_age_and_age_before_name() -> None:
    queue = [request("1.z", 1), request("1.a", 1), request("1.old", 0), request("9.urgent", 9, priority=-1)]
    order = [one.request for one in plan([a_host(f"h{n}") for n in range(4)], queue).start]
    assert order == ["9.urgent", "1.old", "1.a", "1.z"]


def test_the_nearest_host_and_what_it_lacks_are_named() -> None:
    lab = [a_host("h1", "slow", arch="arm64"), a_host("h2", "hvm")]
    wanted = RoleRequest(role="src", requirement=Requirement('arch == "x86_64" and hvm and ipmi'))
    with pytest.raises(ConfigError, match=r"src: no host matches .*: the nearest is h2, which lacks ipmi"):
        check_possible(request("1.a", 0, wanted), lab)
    with pytest.raises(ConfigError, match="the lab has no hosts"):
        check_possible(request("1.a"), [])


def test_out_of_use_and_too_few_are_told_apart() -> None:
    sick = a_host("h1", health=Health.MAINTENANCE)
    assert explain_impossible(request("1.a"), [sick]) == (
        "host: every host that could serve is out of use: h1 is maintenance"
    )
    check_possible(request("1.a"), [sick])  # it may come back
    assert "needs 2 hosts at one time" in explain_impossible(request("1.a", 0, *pair()), [a_host("h1")])
    with pytest.raises(ConfigError, match="needs 2 hosts"):
        check_possible(request("1.a", 0, *pair()), [a_host("h1")])


def test_a_job_asks_for_what_its_recipe_and_its_runvars_say() -> None:
    values = {"all_hostflags": "hvm", "b_hostflags": 'name == "h2"', "b_dom0_image": "other"}
    attempt = Attempt(id=1, number=1, status=JobStatus.BROKEN, hosts={"a": "h7"}, started=None, worker="w")  # type: ignore[arg-type]
    job = Job(
        flight=3,
        name="j",
        recipe=PAIR,
        status=JobStatus.QUEUED,
        runvars=tuple(Runvar(name=name, value=value) for name, value in values.items()),
        attempts=(attempt, replace(attempt, status=JobStatus.FAIL, hosts={"a": "h8"})),
    )
    asked = request_of(job, priority=1, position=4)
    assert (asked.id, asked.flight, asked.priority, asked.avoid) == ("3.j", 3, 1, frozenset({"h7"}))
    one, two = asked.roles
    assert one.requirement.matches(a_host("h1", "hvm"))
    assert not one.requirement.matches(a_host("h1", "slow"))
    assert [host.name for host in (a_host("h1", "hvm"), a_host("h2", "hvm")) if two.requirement.matches(host)] == ["h2"]
    assert one.setup_key == setup_key("a", Runvars(values)) != two.setup_key
    assert request_of(replace(job, flight=2), position=99_999).order < asked.order


def test_the_plan_of_a_large_lab_is_quick() -> None:
    lab: list[Host] = [a_host(f"h{number:03d}") for number in range(60)]
    queue = [request(f"1.{number}", number, *pair()) for number in range(10)]
    assert len(plan(lab, queue).start) == 10


def hostless(id_: str, order: int, **more: object) -> Request:
    return Request(id=id_, order=order, roles=(), lane="build", **more)  # type: ignore[arg-type]


def test_a_job_without_hosts_takes_a_place_in_its_lane_and_no_host() -> None:
    queue = [hostless("1.c", 3), hostless("1.a", 1), hostless("1.b", 2), request("1.t", 4)]
    decided = plan([a_host("h1")], queue, lanes={"build": 2})
    assert [one.request for one in decided.start] == ["1.a", "1.b", "1.t"]
    assert hosts_of(decided, "1.a") == {}
    assert hosts_of(decided, "1.t") == {"host": "h1"}
    assert [(one.request, one.reason) for one in decided.waiting] == [("1.c", "waiting for another build to end")]


def test_a_full_lane_holds_nobody_up_who_needs_hosts() -> None:
    decided = plan([a_host("h1")], [hostless("1.a", 1), hostless("1.b", 2, priority=-1), request("1.t", 9)], lanes={})
    assert [one.request for one in decided.start] == ["1.t"]
    assert [one.reason for one in decided.waiting] == [
        "waiting for another build to end",
        "waiting for another build to end; 1 ahead of it",
    ]


# --- backfilling in front of a gang that waits


def lengths(p90: float) -> dict[str, object]:
    return {"estimate": Estimate(p50_s=p90 / 2, p90_s=p90)}


def backfilled(
    *, back: float, p90: float, kept: float = 0.0, limit: Limit | None = None, lab: list[Host] | None = None
) -> list[str]:
    """Who starts where a pair waits for h2, which is back in so many seconds, and a job of so many is behind."""
    hosts = lab or [a_host("h1"), a_host("h2", state=HostState.LEASED)]
    queue = [request("1.gang", 0, *pair()), request("2.short", 1, **lengths(p90))]
    decided = plan(hosts, queue, back={"h2": back}.__getitem__, held={"1.gang": kept}, limit=limit)
    return [one.request for one in decided.start]


def test_a_job_that_ends_before_a_gang_can_begin_goes_in_front_of_it() -> None:
    assert backfilled(back=600, p90=600) == ["2.short"]
    assert backfilled(back=600, p90=601) == []
    assert backfilled(back=0, p90=1) == []


def test_nobody_knows_when_a_host_comes_back_so_it_keeps_nobody_waiting() -> None:
    assert backfilled(back=math.inf, p90=100_000) == ["2.short"]


def test_a_gang_that_has_kept_hosts_too_long_lets_nobody_pass() -> None:
    assert backfilled(back=600, p90=10, kept=DEFAULT_POLICY.patience) == ["2.short"]
    assert backfilled(back=600, p90=10, kept=DEFAULT_POLICY.patience + 1) == []


def test_a_gang_keeps_no_more_hosts_than_it_needs() -> None:
    lab = [a_host("h0", "hvm", "equiv-b"), a_host("h1"), a_host("h2", state=HostState.LEASED)]
    queue = [request("1.gang", 0, *pair()), *(request(f"2.{number}", number, **lengths(900)) for number in (1, 2))]
    decided = plan(lab, queue, back={"h2": 600.0}.__getitem__)
    assert [(one.request, dict(one.hosts)) for one in decided.start] == [("2.1", {"host": "h0"})]
    assert len(plan(lab, queue).waiting) == 3, "without knowing who comes back, it keeps all"


def test_the_places_of_a_gang_may_be_used_until_it_can_begin() -> None:
    """Two may run. The pair waits for h2; h3 is neither's, and its place is the gang's."""
    limit = Limit(hosts=frozenset({"h1", "h2", "h3"}), running=2)
    lab = [a_host("h1"), a_host("h2", state=HostState.LEASED), a_host("h3", "other", "equiv-c")]
    other = RoleRequest(role="host", requirement=Requirement("other"))

    def started(p90: float) -> list[str]:
        queue = [request("1.gang", 0, *pair()), request("2.other", 1, other, **lengths(p90))]
        return [one.request for one in plan(lab, queue, back={"h2": 600.0}.__getitem__, limit=limit).start]

    assert started(500) == ["2.other"]
    assert started(700) == []
    ready = [a_host("h1"), a_host("h2"), a_host("h3", "other", "equiv-c", state=HostState.LEASED)]
    queue = [request("1.gang", 0, *pair()), request("2.short", 1, **lengths(500)), request("2.long", 2, **lengths(700))]
    decided = plan(ready, queue, back={"h3": 600.0}.__getitem__, limit=limit)
    assert [one.request for one in decided.start] == ["2.short"], "the pair's hosts are free, its place is not"
    assert decided.waiting[0].for_place


def test_all_hosts_of_a_job_are_of_one_site() -> None:
    lab = [a_host("h1", site="north"), a_host("h2", site="south"), a_host("h3", site="south")]
    assert hosts_of(plan(lab, [request("1.a", 0, *pair())]), "1.a") == {"src": "h2", "dst": "h3"}
    assert hosts_of(plan(lab[:2], [request("1.a", 0, *pair())]), "1.a") == {}
    both = RoleRequest(role="a"), RoleRequest(role="b")
    limit = Limit(hosts=frozenset({"h1", "h2"}), running=2)
    assert not plan(lab[:2], [request("1.a", 0, *both)], limit=limit).start
    assert not plan(lab[:2], [request("1.a", 0, *both)]).waiting[0].possible
