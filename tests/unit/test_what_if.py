"""What-ifs, the lower bound and the rule of starvation: by example."""

from __future__ import annotations

import pytest
from factories import a_host

from lab.errors import ConfigError
from lab.hosts.bounds import lower_bound
from lab.hosts.model import Requirement
from lab.hosts.outcome import starved, summarize
from lab.hosts.request import Request, RoleRequest
from lab.hosts.simulation import Scenario, SimulatedJob, simulate
from lab.hosts.what_if import what_if


def job(name: str, seconds: float, requires: str = "", **more: object) -> SimulatedJob:
    after = more.pop("after", ())
    roles = (RoleRequest(role="host", requirement=Requirement(requires)),)
    request = Request(id=name, order=0, roles=roles, tenant="ann", **{"flight": 1, **more})  # type: ignore[arg-type]
    return SimulatedJob(request=request, seconds=seconds, after=after)  # type: ignore[arg-type]


HOSTS = [a_host("h1"), a_host("h2"), a_host("a1", "slow", arch="arm64")]
BASE = Scenario(hosts=HOSTS, jobs=[job("1.a", 10, 'arch == "arm64"'), job("1.b", 10, 'arch == "arm64"')])


def test_more_hosts_are_like_those_that_are_there() -> None:
    changed = what_if("hosts arm64  +2", BASE)
    assert changed.text == "hosts arm64 +2"
    assert [host.name for host in changed.scenario.hosts] == ["h1", "h2", "a1", "more-1", "more-2"]
    assert {host.arch for host in changed.scenario.hosts[2:]} == {"arm64"}
    assert simulate(changed.scenario).ran[-1].end == 10
    assert simulate(BASE).ran[-1].end == 20


def test_hosts_shares_and_weights_can_be_taken_away_or_changed() -> None:
    assert [host.name for host in what_if('hosts arch == "x86_64" and hvm -1', BASE).scenario.hosts] == ["h1", "a1"]
    assert what_if("share ann=2.5", BASE).scenario.rules.shares == {"ann": 2.5}
    assert what_if("weight set_up = 0", BASE).scenario.rules.policy.set_up == 0
    assert what_if("ageing_h=2", BASE).scenario.rules.ageing_s == 7200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts riscv +1", "no host is like that"),
        ("hosts arm64 -2", "only 1 hosts are like that"),
        ("hosts arm64 +999999", "more than"),
        ("hosts __import__('os') +1", "not allowed"),
        ("share bob=2", "no tenant 'bob'"),
        ("share ann=0", "no number"),
        ("share ann=nan", "no number"),
        ("weight speed=1", "no weight 'speed'"),
        ("weight set_up=-1", "no number"),
        ("arm64 +2", "not known what that means"),
        ("", "not known what that means"),
    ],
)
def test_what_means_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        what_if(text, BASE)
    assert told.value.hint


def test_the_least_time_is_that_of_the_scarcest_hosts_the_whole_lab_or_the_longest_chain() -> None:
    arm = [job(f"1.{number}", 10, "slow") for number in range(5)]
    assert lower_bound(HOSTS, arm).seconds == 50
    assert "only 1 of 3 hosts" in lower_bound(HOSTS, arm).why
    anywhere = [job(f"1.x{number}", 50) for number in range(5)]
    assert lower_bound(HOSTS, [*arm, *anywhere]).seconds == 100
    assert "all hosts" in lower_bound(HOSTS, [*arm, *anywhere]).why
    chain = [job("1.c", 90), job("1.d", 30, after=("1.c",)), *arm]
    assert lower_bound(HOSTS, chain).seconds == 120
    assert "1.d" in lower_bound(HOSTS, chain).why
    late = [job("1.l", 10, submitted=5.0), job("1.m", 100, "slow", submitted=200.0)]
    assert lower_bound(HOSTS, late).seconds == 295, "from when the first one comes"


def test_a_union_of_requirements_may_be_scarcer_than_each() -> None:
    hosts = [a_host("h1", "a"), a_host("h2", "b"), *(a_host(f"h{number}", "c") for number in range(3, 9))]
    jobs = [job(f"1.{number}", 10, flag) for number in range(4) for flag in ("a", "b")]
    jobs = [job(f"1.{number}{flag}", 10, flag) for number in range(3) for flag in ("a", "a or b")]
    assert lower_bound(hosts, jobs).seconds == 30
    jobs += [job(f"1.more{number}", 10, "b or a") for number in range(3)]
    assert lower_bound(hosts, jobs).seconds == 45


def test_a_job_that_makes_its_flight_five_times_as_long_is_starved() -> None:
    quick = [job(f"1.q{number}", 10, "hvm") for number in range(18)]  # nine tenths have ended after 90 s
    late = [job("1.arm", 10, "slow"), job("9.before", 460, "slow", flight=9, priority=-1)]
    outcome = simulate(Scenario(hosts=HOSTS, jobs=[*quick, *late]))
    assert starved(outcome.ran) == ["1.arm"]
    late[1] = job("9.before", 440, "slow", flight=9, priority=-1)
    scenario = Scenario(hosts=HOSTS, jobs=[*quick, *late])
    assert summarize(scenario, simulate(scenario)).starved == []


def test_a_summary_tells_waits_and_use() -> None:
    summary = summarize(BASE, simulate(BASE))
    assert (summary.makespan, summary.bound.seconds, summary.ratio) == (20, 20, 1)
    assert (summary.tenants["ann"].p50, summary.tenants["ann"].longest) == (0, 10)
    assert {name: use.busy for name, use in summary.classes.items()} == {"arm64 slow": 1.0, "x86_64 hvm": 0.0}
