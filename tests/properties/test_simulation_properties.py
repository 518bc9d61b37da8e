"""Simulations: what holds for every lab and every workload."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import labs, queues

from lab.hosts.bounds import lower_bound
from lab.hosts.durations import Estimate
from lab.hosts.model import Host, HostState
from lab.hosts.outcome import summarize
from lab.hosts.planner import plan
from lab.hosts.request import Request, RoleRequest
from lab.hosts.simulation import Outcome, Rules, Scenario, SimulatedJob, simulate
from lab.hosts.slots import Limit
from lab.hosts.workload import Shape, a_lab, a_workload

FEW = settings(max_examples=60)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A few hosts, all free, and jobs that come at some time; some after others, some where few hosts may run."""
    hosts = [replace(host, state=HostState.FREE) for host in draw(labs(low=1, high=5, ready=False))]
    jobs: list[SimulatedJob] = []
    for request in draw(queues(high=10)):
        p50 = draw(st.sampled_from([1.0, 10.0, 60.0]))
        after = draw(st.sets(st.sampled_from([job.request.id for job in jobs]), max_size=2)) if jobs else set()
        request = replace(
            request,
            tenant=draw(st.sampled_from(["ann", "bob"])),
            submitted=draw(st.sampled_from([0.0, 0.0, 5.0, 100.0])),
            estimate=Estimate(p50_s=p50, p90_s=2 * p50),
        )
        jobs.append(SimulatedJob(request=request, seconds=p50 * draw(st.floats(0.5, 3)), after=tuple(sorted(after))))
    limit = draw(st.sampled_from([None, None, Limit(hosts=frozenset(host.name for host in hosts), running=2)]))
    return Scenario(hosts=hosts, jobs=jobs, rules=Rules(limit=limit))


def alone(scenario: Scenario, request: Request) -> bool:
    """Whether the request could be served by a lab that has nothing else to do."""
    return bool(plan(scenario.hosts, [request], limit=scenario.rules.limit).start)


@FEW
@given(scenarios())
def test_no_host_has_two_jobs_at_once_and_gangs_have_all_of_theirs(scenario: Scenario) -> None:
    held: dict[str, list[tuple[float, float]]] = {}
    for one in simulate(scenario).ran:
        assert set(one.hosts) == {role.role for role in one.job.request.roles}
        assert len(set(one.hosts.values())) == len(one.hosts)
        assert one.end == one.start + one.job.seconds
        for name in one.hosts.values():
            held.setdefault(name, []).append((one.start, one.end))
    for spans in held.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    limit = scenario.rules.limit
    if limit is not None:
        edges = sorted(
            (when, change) for spans in held.values() for a, b in spans for when, change in ((a, 1), (b, -1))
        )
        running = most = 0
        for _when, change in edges:
            running += change
            most = max(most, running)
        assert most <= limit.running


@FEW
@given(scenarios())
def test_every_job_that_can_run_does_and_none_before_it_may(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    ends = {one.job.request.id: one.end for one in outcome.ran}
    assert len(ends) == len(outcome.ran)
    hopeless: set[str] = set()
    for job in scenario.jobs:  # those that are needed come before those that need them
        if not alone(scenario, job.request) or hopeless.intersection(job.after):
            hopeless.add(job.request.id)
    assert set(outcome.impossible) == hopeless
    assert ends.keys() == {job.request.id for job in scenario.jobs} - hopeless
    for one in outcome.ran:
        assert one.start >= one.ready >= one.job.request.submitted
        assert all(one.start >= ends[other] for other in one.job.after)


@FEW
@given(scenarios(), st.randoms(use_true_random=False))
def test_the_order_in_which_hosts_and_jobs_are_given_does_not_matter(scenario: Scenario, chance: random.Random) -> None:
    hosts, jobs = list(scenario.hosts), list(scenario.jobs)
    chance.shuffle(hosts)
    chance.shuffle(jobs)
    assert simulate(replace(scenario, hosts=hosts, jobs=jobs)) == simulate(scenario)


@FEW
@given(scenarios())
def test_nothing_ends_before_the_lower_bound(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    summary = summarize(scenario, outcome)
    assert summary.makespan >= summary.bound.seconds - 1e-6


@FEW
@given(scenarios())
def test_the_lab_never_stands_still_while_somebody_waits(scenario: Scenario) -> None:
    """From when a job that can run is ready until it starts, something runs."""
    outcome = simulate(scenario)
    for one in outcome.ran:
        at = one.ready
        for other in outcome.ran:  # in the order of starting
            if other.start <= at < other.end:
                at = max(other.end for other in outcome.ran if other.start <= at)
        assert one.start <= at


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.0, 2.0]))
def test_what_is_made_up_from_one_seed_is_always_the_same_and_runs(seed: int, over_h: float) -> None:
    shape = Shape(hosts=12, jobs=60, tenants=3, flight_jobs=10, over_h=over_h)

    def run() -> Outcome:
        hosts = a_lab(shape, seed)
        return simulate(Scenario(hosts=hosts, jobs=a_workload(shape, seed, hosts)))

    outcome = run()
    assert outcome == run()
    assert len(outcome.ran) == 60
    assert not outcome.impossible


@given(st.integers(0, 200), st.integers(0, 200))
def test_two_seeds_give_two_workloads(one: int, other: int) -> None:
    assume(one != other)
    shape = Shape(hosts=5, jobs=5)
    hosts: list[Host] = a_lab(shape, 1)
    assert a_workload(shape, one, hosts) != a_workload(shape, other, hosts)
    assert lower_bound(hosts, []).seconds == 0


def exact(job: SimulatedJob, **changes: object) -> SimulatedJob:
    """The same job, taking exactly as long as is expected."""
    estimate = Estimate(p50_s=job.seconds, p90_s=job.seconds)
    return replace(job, request=replace(job.request, tenant="ann", priority=0, estimate=estimate, **changes))  # type: ignore[arg-type]


@FEW
@given(scenarios(), scenarios())
def test_who_goes_in_front_of_a_waiting_gang_does_not_delay_it(first: Scenario, later: Scenario) -> None:
    """Where all take as long as expected: the first of those that wait begins as if nobody came after it."""
    hosts, rules = first.hosts, replace(first.rules, limit=None)
    ahead = [exact(replace(job, after=()), submitted=0.0) for job in first.jobs]
    roles = tuple(RoleRequest(role=f"r{number}") for number in range(min(2, len(hosts))))
    gang = SimulatedJob(request=Request(id="gang", order=5, roles=roles, tenant="ann", submitted=1.0), seconds=7)
    behind = [
        exact(replace(job, after=()), id=f"later {job.request.id}", order=9, submitted=1.0, flight=None)
        for job in later.jobs
    ]

    def starts(jobs: list[SimulatedJob]) -> float | None:
        ran = simulate(Scenario(hosts=hosts, jobs=jobs, rules=rules)).ran
        return next((one.start for one in ran if one.job.request.id == "gang"), None)

    # Those that came before and wait themselves are not what this is about: they have turns before the gang's.
    running = {one.job.request.id for one in simulate(Scenario(hosts=hosts, jobs=ahead)).ran if one.start == 0.0}
    ahead = [job for job in ahead if job.request.id in running]
    assert starts([*ahead, gang, *behind]) == starts([*ahead, gang])


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 12), st.floats(0, 500), st.sampled_from([1.0, 2.0]))
def test_a_flood_delays_another_tenant_boundedly(hosts: int, few: int, comes: float, share: float) -> None:
    """The n-th job of the small tenant begins when at most n/share jobs of the flood have begun since it came."""
    length = 100.0
    lab = [Host(name=f"h{number}", arch="x86_64") for number in range(hosts)]

    def job(number: int, tenant: str, submitted: float) -> SimulatedJob:
        request = Request(
            id=f"{number}.{tenant}",
            order=number,
            roles=(RoleRequest(role="host"),),
            tenant=tenant,
            submitted=submitted,
            estimate=Estimate(p50_s=length, p90_s=length),
        )
        return SimulatedJob(request=request, seconds=length)

    flood = [job(number, "flood", 0.0) for number in range(150)]
    small = [job(1000 + number, "small", comes) for number in range(few)]
    rules = Rules(shares={"small": share})
    ran = simulate(Scenario(hosts=lab, jobs=[*flood, *small], rules=rules)).ran
    mine = [one.start for one in ran if one.job.request.tenant == "small"]
    for number, start in enumerate(mine, start=1):
        rounds = -(-(number + number / share + 1) // hosts)  # all hosts are taken once in each
        assert start <= comes + length * rounds + 1e-6
