"""Mirror: the queue, the hosts and what runs, as the leader remembers them from one decision to the next.

It is read from the database once, and then follows the marks of changed rows (`lab.db.changes`): a decision costs what
has changed, not what there is. What it remembers is only ever a proposal; the database refuses what is no longer so.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates, flights, hosts, leases, queue, sites
from lab.db.changes import drop_changes, take_changes
from lab.db.queue import Queued, Running
from lab.flights.dependencies import Hopeless, Ready, Waits, needed, standing
from lab.flights.model import Job, JobKey
from lab.flights.requests import BUILD_LANE, request_of
from lab.hosts.allocator import Allocator
from lab.hosts.breaker import Breaker, told
from lab.hosts.calendar import entries, soon
from lab.hosts.choice import LastRun
from lab.hosts.durations import ANY_CLASS, Estimate, History, host_class
from lab.hosts.model import Health, Host, HostState
from lab.hosts.planner import Assignment, Plan
from lab.hosts.projection import Block
from lab.hosts.request import Request

BUILDS_AT_ONCE = 1
"""Jobs without hosts that run at a time: each uses all processors of the controller."""

HISTORY_EVERY_S = 10.0
"""How long things took is read anew so often at most, when jobs have ended."""

REMEMBERED = timedelta(days=90)
"""How long it matters on which hosts a job ran."""

CLEANING = Estimate(p50_s=10.0, p90_s=60.0)
"""How long it takes to make a host clean."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A queued job whose needs are met: what it asks of the planner, and the runvars its builds give it."""

    queued: Queued
    request: Request
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """A queued job that waits for other jobs (`flight.job`), what it will ask of the planner, and why it waits."""

    queued: Queued
    request: Request
    needs: frozenset[str]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the leader remembered at one moment, for who explains it while the leader goes on."""

    ready: Mapping[str, Waiting]
    blocked: Sequence[Blocked]
    plan: Plan
    hosts: Sequence[Host]
    running: Sequence[Running]
    blocks: Sequence[Block]
    used: Mapping[str, float]
    history: History

    @cached_property
    def classes(self) -> Mapping[str, str]:
        """The class of each host."""
        return {host.name: host_class(host) for host in self.hosts}

    def class_of(self, names: Iterable[str]) -> str:
        """The class of the first of these hosts that is known."""
        return next((self.classes[name] for name in names if name in self.classes), ANY_CLASS)


class Mirror:
    """What the leader remembers. Not for several threads; made anew after any error."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        scheduler = lab.scheduler
        self._half_life_s = scheduler.usage_half_life_s
        self.history = History(samples={}, default=scheduler.default_estimate)
        self.ready: dict[str, Waiting] = {}
        """Jobs that wait for hosts or for a place in a lane, by `flight.job`."""
        self.blocked: dict[str, Blocked] = {}
        """Jobs that wait for other jobs."""
        self.hopeless: dict[str, tuple[Job, str]] = {}
        """Jobs that can never run, and why: they are to be ended."""
        self.hosts: dict[str, Host] = {}
        self.running: dict[JobKey, Running] = {}
        self.shut: Mapping[str, Breaker] = {}
        """Sites that get no work."""
        self.news = True
        """Whether something has changed since `snapshot` was taken."""
        self.allocator = Allocator(
            shares=scheduler.shares,
            ageing_s=scheduler.ageing_s,
            policy=scheduler.policy,
            limit=lab.limit,
            expected=self._expected,
            past=self._past,
        )
        self._last_runs: dict[str, dict[str, LastRun]] = {}
        self._history_read = 0.0
        self._used: dict[str, float] = {}
        self._blocks: list[Block] = []
        self._preemptable: set[str] = set()
        self._needs: dict[str, Collection[JobKey]] = {}
        self._dependants: dict[JobKey, set[str]] = defaultdict(set)

    def load(self, session: Session) -> None:
        """Read everything. Marks that are there already tell nothing new then."""
        drop_changes(session)
        self._read_history(session)
        self._last_runs = estimates.load_last_runs(session, since=self._lab.clock() - REMEMBERED)
        for name in [*self.hosts]:
            self._forget_host(name)
        self.shut = sites.shut_sites(session)
        for host in hosts.present_hosts(session):
            self._put_host(host)
        for key in [*self.running]:
            self._ended(key)
        for one in queue.load_running(session):
            self._runs(one)
        for job_id in [*self.ready, *self.blocked, *self.hopeless]:
            self._forget(job_id)
        self._take(session, queue.load_queued(session))

    def follow(self, session: Session, limit: int) -> bool:
        """Read what has changed, at most `limit` marks of it; True when there is more."""
        changes = take_changes(session, limit)
        if changes.jobs and time.monotonic() > self._history_read + HISTORY_EVERY_S:
            self._read_history(session)
        self.news = self.news or bool(changes.jobs or changes.hosts or changes.others)
        if sites.MARK in changes.others:
            self.shut = sites.shut_sites(session)
            for host in self.hosts.values():
                self.allocator.fleet.put(self._lendable(host))
        self._read(session, changes.jobs, changes.hosts)
        return changes.more

    def _read_history(self, session: Session) -> None:
        self.history = estimates.load_history(session, self.history.default)
        self._history_read = time.monotonic()

    def look_again(self, session: Session, assignment: Assignment) -> None:
        """What was planned could not be done: see how the job and its hosts stand really."""
        queued = self.ready[assignment.request].queued
        self._read(session, [(queued.job.flight, queued.job.name)], assignment.hosts.values())

    def _read(self, session: Session, jobs: Collection[JobKey], names: Collection[str]) -> None:
        if jobs:
            ended = {name for flight, name in jobs if (flight, name) in self.running}
            if ended:
                since = self._lab.clock() - REMEMBERED
                self._last_runs |= estimates.load_last_runs(session, since=since, jobs=ended)
            for key in jobs:
                self._ended(key)
            for one in queue.load_running(session, jobs):
                self._runs(one)
            again = {*jobs, *self._waiting_for(jobs)}
            for flight, name in again:
                self._forget(f"{flight}.{name}")
            self._take(session, queue.load_queued(session, again))
        if names:
            found = hosts.find_hosts(session, names)
            for name in names:
                if name in found:
                    self._put_host(found[name])
                else:
                    self._forget_host(name)

    def decide(self, session: Session) -> Plan:
        """What starts now: of each kind of request those whose turn it is, as many as could start, and the next one."""
        now = self._lab.clock().timestamp()
        self._used = self._usage(session, now)
        self._blocks = self._promises(session)
        builds = BUILDS_AT_ONCE - sum(1 for one in self.running.values() if not one.hosts)
        return self.allocator.decide(
            now,
            used=self._used,
            left=self._time_left(now),
            back=self._back(now),
            lanes={BUILD_LANE: builds},
            whole=bool(self._preemptable),
        )

    def _back(self, now: float) -> Callable[[str], float]:
        """In how many seconds hosts are expected back: from jobs, from people, or from being made clean."""
        leases = {block.host: block.end for block in self._blocks if block.kind == "lease" and block.end is not None}

        def back(name: str) -> float:
            if self.hosts[name].state is HostState.CLEANING:
                return CLEANING.p50_s
            return max(0.0, leases[name] - now) if name in leases else self.allocator.runs.back(name, now)

        return back

    def wanted(self, plan: Plan) -> dict[str, str]:
        """Hosts under preemptable leases on which jobs that wait would start, and which jobs."""
        left, found = sorted(self._preemptable), dict[str, str]()
        for waiting in plan.waiting if left else ():
            if not waiting.possible or waiting.request not in self.ready or waiting.for_place:
                continue
            for role in self.ready[waiting.request].request.roles:
                name = next((name for name in left if role.requirement.matches(self.hosts[name])), None)
                if name is not None:
                    left.remove(name)
                    found[name] = f"job {waiting.request}"
        return found

    def _usage(self, session: Session, now: float) -> dict[str, float]:
        """What tenants have used; what runs counts as long as it is expected to, or has taken already."""
        used = estimates.load_usage(session, half_life_s=self._half_life_s, now=self._lab.clock())
        for tenant, host_seconds in self.allocator.runs.used(now).items():
            used[tenant] = used.get(tenant, 0.0) + host_seconds
        return used

    def _promises(self, session: Session) -> list[Block]:
        """What people were promised, blockages, and hosts of sites that do not answer."""
        now = self._lab.clock()
        going = leases.going_leases(session)
        calendar = [*entries(going, leases.blockages(session, now), self.hosts.values(), now), *soon(going, now)]
        taken = {entry.host for entry in calendar if entry.kind == "lease" and entry.preemptable}
        self._preemptable = taken & self.hosts.keys()
        blocks = [
            Block(
                host=entry.host,
                start=entry.start.timestamp(),
                end=entry.end.timestamp() if entry.end else None,
                kind=entry.kind,
                why=f"{entry.kind} of {entry.who}: {entry.why}",
            )
            for entry in calendar
            if not (entry.kind == "booking" and entry.preemptable)  # it gives way to jobs
        ]
        shut = [host for host in self.hosts.values() if host.site in self.shut]
        why = {site: told(site, breaker) for site, breaker in self.shut.items()}
        return blocks + [Block(host=host.name, start=0.0, end=None, kind="shut", why=why[host.site]) for host in shut]

    def _time_left(self, now: float) -> dict[str, float]:
        """In how many seconds hosts are promised to somebody else; -1: they are now."""
        left: dict[str, float] = {}
        for block in self._blocks:
            if block.end is None or block.end > now:
                until = block.start - now if block.start > now else -1.0
                left[block.host] = min(until, left.get(block.host, math.inf))
        return left

    def snapshot(self, plan: Plan) -> Snapshot:
        """All of it now, with the latest plan."""
        self.news = False
        return Snapshot(
            ready=dict(self.ready),
            blocked=list(self.blocked.values()),
            plan=plan,
            hosts=list(self.hosts.values()),
            running=list(self.running.values()),
            blocks=self._blocks,
            used=self._used,
            history=self.history,
        )

    def _put_host(self, host: Host) -> None:
        self.hosts[host.name] = host
        self.allocator.fleet.put(self._lendable(host))

    def _forget_host(self, name: str) -> None:
        self.hosts.pop(name, None)
        self.allocator.fleet.drop(name)

    def _runs(self, one: Running) -> None:
        self.running[one.flight, one.job] = one
        self.allocator.runs.begin(
            f"{one.flight}.{one.job}",
            tenant=one.tenant,
            hosts=one.hosts.values(),
            since=one.started.timestamp(),
            estimate=self.history.expected(one.job, one.recipe, self._class_of(one.hosts.values())),
        )

    def _ended(self, key: JobKey) -> None:
        self.running.pop(key, None)
        self.allocator.runs.end(f"{key[0]}.{key[1]}")

    def _expected(self, request: Request) -> Estimate:
        """How long a job that waits will take, by what is known now."""
        job = self.ready[request.id].queued.job
        return self.history.expected(job.name, job.recipe)

    def _past(self, request: Request) -> Mapping[str, LastRun]:
        """Where jobs of the name of one that waits ended of late."""
        return self._last_runs.get(self.ready[request.id].queued.job.name, {})

    def _lendable(self, host: Host) -> Host:
        """The host as the planner sees it: at a site that does not answer it is out of use."""
        if host.site not in self.shut:
            return host
        return replace(host, health=Health.MAINTENANCE, health_reason=told(host.site, self.shut[host.site]))

    def _class_of(self, names: Iterable[str]) -> str:
        """The class of the first of these hosts that is known."""
        return next((host_class(self.hosts[name]) for name in names if name in self.hosts), ANY_CLASS)

    def _waiting_for(self, keys: Iterable[JobKey]) -> set[JobKey]:
        ids = {job_id for key in keys for job_id in self._dependants.get(key, ())}
        return {(int(flight), name) for flight, _dot, name in (job_id.partition(".") for job_id in ids)}

    def _take(self, session: Session, found: Iterable[Queued]) -> None:
        jobs = list(found)
        needs = {one.job.id: frozenset(needed(one.job.values, one.job.flight).values()) for one in jobs}
        others = flights.load_jobs(session, {key for keys in needs.values() for key in keys})
        going = _going(others)
        for one in jobs:
            job = one.job
            self._needs[job.id] = needs[job.id]
            for key in needs[job.id]:
                self._dependants[key].add(job.id)
            match standing(job, others):
                case Ready(outputs=outputs):
                    self._submit(one, outputs)
                case Waits(reason=reason):
                    self.blocked[job.id] = Blocked(
                        queued=one,
                        request=self._request(one),
                        needs=frozenset(f"{flight}.{name}" for flight, name in needs[job.id] & going),
                        reason=reason,
                    )
                case Hopeless(reason=reason):
                    self.hopeless[job.id] = (job, reason)

    def _submit(self, one: Queued, outputs: Mapping[str, str]) -> None:
        request = self._request(one)
        self.ready[one.job.id] = Waiting(queued=one, request=request, outputs=outputs)
        self.allocator.put(request)

    def _request(self, one: Queued) -> Request:
        return request_of(
            one.job,
            priority=one.priority,
            position=one.position,
            tenant=one.tenant,
            estimate=self.history.expected(one.job.name, one.job.recipe),
        )

    def _forget(self, job_id: str) -> None:
        self.allocator.drop(job_id)
        for kept in (self.ready, self.blocked, self.hopeless):
            kept.pop(job_id, None)
        for key in self._needs.pop(job_id, ()):
            self._dependants[key].discard(job_id)
            if not self._dependants[key]:
                del self._dependants[key]


def _going(jobs: Mapping[JobKey, Job]) -> set[JobKey]:
    """Those that have not ended."""
    return {key for key, job in jobs.items() if not job.status.final}
