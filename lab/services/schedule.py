"""Schedule: follow what changed, make one plan, and lease its hosts in the same short transaction."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts
from lab.db import session as db
from lab.flights.model import Job
from lab.flights.status import JobStatus
from lab.hosts.planner import Assignment, Plan
from lab.services.explain import Explainer, explained
from lab.services.give_back import give_back
from lab.services.mirror import Mirror, Snapshot
from lab.services.settle import close_if_done, give_up

CLAIM_S = 60.0
"""How long an attempt waits for a worker to claim it before it counts as broken."""

MARKS_AT_ONCE = 1000
"""Changes that are followed in one transaction: a flight of 10,000 jobs must not keep everybody waiting."""


class Scheduler:
    """Schedules again and again with one memory. After an error its memory is worth nothing: make a new one."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.mirror = Mirror(lab)
        self.plan = Plan()
        """The latest one."""

    def load(self, session: Session) -> None:
        """Read everything."""
        self.mirror.load(session)

    def look(self, session: Session) -> int:
        """Start every queued job that can start now; returns how many. The database has the last word on each."""
        lab, mirror = self._lab, self.mirror
        self._end_hopeless(session)
        self.plan = mirror.decide(session)
        started = 0
        for assignment in self.plan.start:
            waiting = mirror.ready[assignment.request]
            if start(session, lab, assignment, waiting.queued.job, waiting.outputs):
                started += 1
            else:
                mirror.look_again(session, assignment)
        for name in self.plan.power_off:
            give_back(session, lab, name)
        return started

    def follow(self, session: Session) -> bool:
        """Learn what has changed; True when there is more to learn."""
        return self.mirror.follow(session, MARKS_AT_ONCE)

    def wanted(self) -> dict[str, str]:
        """Hosts under preemptable leases on which jobs would start, and which: their holders get notice."""
        return self.mirror.wanted(self.plan)

    def snapshot(self) -> Snapshot:
        """What there is to explain."""
        return self.mirror.snapshot(self.plan)

    def _end_hopeless(self, session: Session) -> None:
        """End the jobs that can never run; those that need them in turn are met when their marks are followed."""
        ended = set()
        for job, reason in list(self.mirror.hopeless.values()):
            give_up(session, self._lab, job.flight, job.name, JobStatus.BLOCKED, reason)
            ended.add(job.flight)
        self.mirror.hopeless.clear()
        for flight in sorted(ended):
            close_if_done(session, self._lab, flight)


def schedule(session: Session, lab: Lab) -> int:
    """Look once, without a memory: start what can start, and write down why the rest waits. Returns how many start."""
    scheduler = Scheduler(lab)
    scheduler.load(session)
    started = scheduler.look(session)
    scheduler.follow(session)
    Explainer(lab).write_all(session, explained(lab, scheduler.snapshot()))
    return started


def start(session: Session, lab: Lab, assignment: Assignment, waiting: Job, outputs: Mapping[str, str]) -> bool:
    """Lease the hosts and make the attempt; False, and nothing is done, when the job or a host is not to be had."""
    flight, job = waiting.flight, waiting.name
    if not flights.lock_queued(session, flight, job) or not hosts.lock_free(session, assignment.hosts.values()):
        return False  # aborted or taken while the plan was made
    flights.set_job_status(session, flight, job, current=JobStatus.QUEUED, to=JobStatus.PREPARING)
    now = lab.clock()
    token = secrets.token_hex(16)
    held = []
    for role, name in assignment.hosts.items():
        fence = hosts.fence_host(session, name)
        assert fence is not None, f"host {name} was free and locked"
        held.append((role, name, fence, role in assignment.reused))
    attempt = flights.add_attempt(
        session,
        flight,
        job,
        token=token,
        hosts=held,
        now=now,
        until=now + timedelta(seconds=CLAIM_S),
        build_site=lab.build_site,
    )
    for runvar, value in outputs.items():
        flights.save_runvar(session, flight, job, runvar, value)
    for _role, name, _fence, _reused in held:
        hosts.take_host(session, name, attempt=attempt, holder=f"{flight}.{job}", now=now)
    flights.add_event(
        session, kind="job", now=now, flight=flight, data={"job": job, "status": JobStatus.PREPARING.value}
    )
    db.after_commit(session, partial(lab.dispatch.run_job, attempt, token))
    return True
