"""Mirror: the queue, the hosts and what runs, as the leader remembers them from one decision to the next.

It is read from the database once, and then follows the marks of changed rows (`lab.db.changes`): a decision costs what
has changed, not what there is. What it remembers is only ever a proposal; the database refuses what is no longer so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates, flights, hosts, queue, sites
from lab.db.changes import drop_changes, take_changes
from lab.db.queue import JobKey, Queued, Running
from lab.flights.dependencies import Hopeless, Ready, Waits, needed, standing
from lab.flights.model import Job
from lab.flights.requests import BUILD_LANE, request_of
from lab.hosts.breaker import Breaker, told
from lab.hosts.durations import Spread
from lab.hosts.model import Health, Host
from lab.hosts.planner import Assignment, Plan, Request, plan

BUILDS_AT_ONCE = 1
"""Jobs without hosts that run at a time: each uses all processors of the controller."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A queued job whose needs are met: what it asks of the planner, and the runvars its builds give it."""

    queued: Queued
    request: Request
    outputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the leader remembered at one moment, for who explains it while the leader goes on."""

    ready: Mapping[str, Waiting]
    blocked: Sequence[tuple[Job, str]]
    plan: Plan


class Mirror:
    """What the leader remembers. Not for several threads; made anew after any error."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        scheduler = lab.scheduler
        self._default = Spread(p50=scheduler.default_duration_s, p90=scheduler.default_duration_p90_s)
        self._half_life_s = scheduler.usage_half_life_h * 3600
        self.ready: dict[str, Waiting] = {}
        """Jobs that wait for hosts or for a place in a lane, by `flight.job`."""
        self.blocked: dict[str, tuple[Job, str]] = {}
        """Jobs that wait for other jobs, and why."""
        self.hopeless: dict[str, tuple[Job, str]] = {}
        """Jobs that can never run, and why: they are to be ended."""
        self.hosts: dict[str, Host] = {}
        self.running: dict[JobKey, Running] = {}
        self.shut: Mapping[str, Breaker] = {}
        """Sites that get no work."""
        self.news = True
        """Whether something has changed since `snapshot` was taken."""
        self._needs: dict[str, Collection[JobKey]] = {}
        self._dependants: dict[JobKey, set[str]] = defaultdict(set)

    def load(self, session: Session) -> None:
        """Read everything. Marks that are there already tell nothing new then."""
        drop_changes(session)
        self._history = estimates.load_history(session, self._default)
        self.hosts = {view.host.name: view.host for view in hosts.list_hosts(session)}
        self.running = {(one.flight, one.job): one for one in queue.load_running(session)}
        self.shut = sites.shut_sites(session)
        for job_id in [*self.ready, *self.blocked, *self.hopeless]:
            self._forget(job_id)
        self._take(session, queue.load_queued(session))

    def follow(self, session: Session, limit: int) -> bool:
        """Read what has changed, at most `limit` marks of it; True when there is more."""
        changes = take_changes(session, limit)
        self.news = self.news or bool(changes.jobs or changes.hosts or changes.others)
        if sites.MARK in changes.others:
            self.shut = sites.shut_sites(session)
        self._read(session, changes.jobs, changes.hosts)
        return changes.more

    def look_again(self, session: Session, assignment: Assignment) -> None:
        """What was planned could not be done: see how the job and its hosts stand really."""
        queued = self.ready[assignment.request].queued
        self._read(session, [(queued.job.flight, queued.job.name)], assignment.hosts.values())

    def _read(self, session: Session, jobs: Collection[JobKey], names: Collection[str]) -> None:
        if jobs:
            for key in jobs:
                self.running.pop(key, None)
            self.running |= {(one.flight, one.job): one for one in queue.load_running(session, jobs)}
            again = {*jobs, *self._waiting_for(jobs)}
            for flight, name in again:
                self._forget(f"{flight}.{name}")
            self._take(session, queue.load_queued(session, again))
        if names:
            found = hosts.find_hosts(session, names)
            for name in names:
                if name in found:
                    self.hosts[name] = found[name]
                else:
                    self.hosts.pop(name, None)

    def decide(self, _now: datetime) -> Plan:
        """What starts now."""
        builds = sum(1 for one in self.running.values() if not one.hosts)
        return plan(
            [self._lendable(host) for host in self.hosts.values()],
            [waiting.request for waiting in self.ready.values()],
            lanes={BUILD_LANE: BUILDS_AT_ONCE - builds},
            limit=self._lab.limit,
        )

    def snapshot(self, plan: Plan) -> Snapshot:
        """All of it now, with the latest plan."""
        self.news = False
        return Snapshot(ready=dict(self.ready), blocked=list(self.blocked.values()), plan=plan)

    def _lendable(self, host: Host) -> Host:
        """The host as the planner sees it: at a site that does not answer it is out of use."""
        if host.site not in self.shut:
            return host
        return replace(host, health=Health.MAINTENANCE, health_reason=told(host.site, self.shut[host.site]))

    def _waiting_for(self, keys: Iterable[JobKey]) -> set[JobKey]:
        ids = {job_id for key in keys for job_id in self._dependants.get(key, ())}
        return {(int(flight), name) for flight, _dot, name in (job_id.partition(".") for job_id in ids)}

    def _take(self, session: Session, found: Iterable[Queued]) -> None:
        jobs = list(found)
        needs = {one.job.id: frozenset(needed(one.job.values, one.job.flight).values()) for one in jobs}
        others = flights.load_jobs(session, {key for keys in needs.values() for key in keys})
        for one in jobs:
            job = one.job
            self._needs[job.id] = needs[job.id]
            for key in needs[job.id]:
                self._dependants[key].add(job.id)
            match standing(job, others):
                case Ready(outputs=outputs):
                    self._submit(one, outputs)
                case Waits(reason=reason):
                    self.blocked[job.id] = (job, reason)
                case Hopeless(reason=reason):
                    self.hopeless[job.id] = (job, reason)

    def _submit(self, one: Queued, outputs: Mapping[str, str]) -> None:
        request = request_of(one.job, priority=one.priority, position=one.position)
        self.ready[one.job.id] = Waiting(queued=one, request=request, outputs=outputs)

    def _forget(self, job_id: str) -> None:
        for kept in (self.ready, self.blocked, self.hopeless):
            kept.pop(job_id, None)
        for key in self._needs.pop(job_id, ()):
            self._dependants[key].discard(job_id)
            if not self._dependants[key]:
                del self._dependants[key]
