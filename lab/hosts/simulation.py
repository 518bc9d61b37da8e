"""A lab in virtual time: jobs come, the leader's own planner decides, jobs end. Pure: the same scenario, the same run.

Discrete events: nothing happens between them, and all that happen at one moment are followed by one decision, as in the
leader. What jobs really take is known to the simulation alone; the planner is told estimates, as in the lab.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.hosts.allocator import Allocator
from lab.hosts.choice import DEFAULT_POLICY, Policy
from lab.hosts.model import Host, HostState
from lab.hosts.planner import Plan
from lab.hosts.request import Request
from lab.hosts.slots import Limit
from lab.hosts.usage import faded


@dataclass(frozen=True, kw_only=True)
class SimulatedJob:
    """A request that comes at `request.submitted`, and takes `seconds`; those in `after` must have ended before."""

    request: Request
    seconds: float
    after: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the lab decides: the settings that a what-if may change."""

    shares: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = 86_400.0
    half_life_s: float = 86_400.0
    policy: Policy = DEFAULT_POLICY
    limit: Limit | None = None
    builds: int = 1
    """jobs without hosts that run at one time"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Hosts, the jobs that come, and the rules. Times are in seconds after the beginning."""

    hosts: Sequence[Host]
    jobs: Sequence[SimulatedJob]
    rules: Rules = Rules()


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A job that ran: since when it could have (`ready`), when it did, and where (role -> host)."""

    job: SimulatedJob
    ready: float
    start: float
    end: float
    hosts: Mapping[str, str]

    @property
    def waited(self) -> float:
        """How long it waited for hosts, in seconds."""
        return self.start - self.ready


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a scenario: what ran, in the order of starting, and the ids of what never can."""

    ran: Sequence[Ran]
    impossible: Sequence[str]
    decisions: int


Timed = Callable[[Callable[[], Plan]], Plan]
"""Calls what it is given; whoever has a clock can measure how long that takes."""

Seen = Callable[[float, Allocator, Mapping[str, float]], None]
"""Is shown the lab after a decision: when, how it stands, and what tenants have used."""


def simulate(
    scenario: Scenario, *, timed: Timed = lambda decide: decide(), seen: Seen = lambda _now, _lab, _used: None
) -> Outcome:
    """Run a scenario to its end, whatever the order in which its hosts and jobs are given."""
    return _Lab(scenario, timed, seen).run()


class _Lab:
    def __init__(self, scenario: Scenario, timed: Timed, seen: Seen) -> None:
        rules = scenario.rules
        self.rules, self.timed, self.seen = rules, timed, seen
        self.allocator = Allocator(shares=rules.shares, ageing_s=rules.ageing_s, policy=rules.policy, limit=rules.limit)
        for host in sorted(scenario.hosts, key=lambda host: host.name):
            self.allocator.fleet.put(host)
        self.jobs = {job.request.id: job for job in sorted(scenario.jobs, key=lambda job: job.request.id)}
        self.events: list[tuple[float, int, str]] = []
        """when, whether one comes (0) or ends (1), and which"""
        for job in self.jobs.values():
            heapq.heappush(self.events, (job.request.submitted, 0, job.request.id))
        self.needs = {job.request.id: {one for one in job.after if one in self.jobs} for job in self.jobs.values()}
        self.needed_by: dict[str, list[str]] = defaultdict(list)
        for job_id, needs in self.needs.items():
            for one in needs:
                self.needed_by[one].append(job_id)
        self.came: set[str] = set()
        self.ready: dict[str, float] = {}
        self.running: dict[str, Ran] = {}
        self.building = 0
        self.used: dict[str, tuple[float, float]] = {}
        """tenant -> host-seconds used, as they counted at a time"""
        self.ran: list[Ran] = []

    def run(self) -> Outcome:
        decisions = 0
        while self.events:
            now = self.events[0][0]
            while self.events and self.events[0][0] <= now:
                _when, ends, job_id = heapq.heappop(self.events)
                if ends:
                    self._ends(job_id, now)
                else:
                    self.came.add(job_id)
                    self._may_wait(job_id, now)
            decided, used = self._decide(now)
            decisions += 1
            for assignment in decided.start:
                self._starts(assignment.request, assignment.hosts, now)
            for name in decided.power_off:
                self._stands(name, HostState.FREE)
            self.seen(now, self.allocator, used)
        never = sorted(self.jobs.keys() - {one.job.request.id for one in self.ran})
        return Outcome(ran=self.ran, impossible=never, decisions=decisions)

    def _decide(self, now: float) -> tuple[Plan, dict[str, float]]:
        used = {tenant: faded(amount, now - at, self.rules.half_life_s) for tenant, (amount, at) in self.used.items()}
        for tenant, amount in self.allocator.runs.used(now).items():
            used[tenant] = used.get(tenant, 0.0) + amount
        lanes = {"build": self.rules.builds - self.building}
        return self.timed(lambda: self.allocator.decide(now, used=used, lanes=lanes)), used

    def _may_wait(self, job_id: str, now: float) -> None:
        if job_id in self.came and not self.needs[job_id]:
            self.ready[job_id] = now
            self.allocator.put(self.jobs[job_id].request)

    def _starts(self, job_id: str, hosts: Mapping[str, str], now: float) -> None:
        job = self.jobs[job_id]
        one = Ran(job=job, ready=self.ready[job_id], start=now, end=now + job.seconds, hosts=hosts)
        self.ran.append(one)
        self.running[job_id] = one
        self.allocator.drop(job_id)
        for name in hosts.values():
            self._stands(name, HostState.LEASED)
        self.building += not hosts
        request = job.request
        self.allocator.runs.begin(
            job_id, tenant=request.tenant, hosts=hosts.values(), since=now, estimate=request.estimate
        )
        heapq.heappush(self.events, (one.end, 1, job_id))

    def _ends(self, job_id: str, now: float) -> None:
        one = self.running.pop(job_id)
        self.allocator.runs.end(job_id)
        for name in one.hosts.values():
            self._stands(name, HostState.FREE)
        self.building -= not one.hosts
        tenant = one.job.request.tenant
        amount, at = self.used.get(tenant, (0.0, now))
        used = (now - one.start) * max(1, len(one.hosts))
        self.used[tenant] = faded(amount, now - at, self.rules.half_life_s) + used, now
        for other in self.needed_by.pop(job_id, ()):
            self.needs[other].discard(job_id)
            self._may_wait(other, now)

    def _stands(self, name: str, state: HostState) -> None:
        fleet = self.allocator.fleet
        fleet.put(replace(fleet.hosts[name], state=state, setup_key=None, setup_flight=None))
