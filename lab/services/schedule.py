"""Schedule: one snapshot, one plan, one short transaction that leases hosts and wakes workers."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts
from lab.db import session as db
from lab.flights.dependencies import Hopeless, Ready, Waits, needed, standing
from lab.flights.model import Job
from lab.flights.requests import BUILD_LANE, request_of
from lab.flights.status import JobStatus
from lab.hosts.planner import Assignment, plan
from lab.services.settle import close_if_done

CLAIM_S = 60.0
"""How long an attempt waits for a worker to claim it before it counts as broken."""

BUILDS_AT_ONCE = 1
"""Jobs without hosts that run at a time: each uses all processors of the controller."""


def schedule(session: Session, lab: Lab) -> int:
    """Start every queued job that can start now; returns how many. The rest learn why they wait."""
    order = flights.job_order(session)
    queue = {job.id: job for job in flights.load_queue(session)}
    if not queue:
        return 0
    others = flights.load_jobs(session, {one for job in queue.values() for one in needed_by(job)})
    requests, outputs, blocked = [], {}, set()
    for job_id, job in queue.items():
        match standing(job, others):
            case Ready(outputs=given):
                priority, position = order[job_id]
                requests.append(request_of(job, priority=priority, position=position))
                outputs[job_id] = given
            case Waits(reason=reason):
                flights.set_job_reason(session, job.flight, job.name, reason)
            case Hopeless(reason=reason):
                _block(session, lab, job, reason)
                blocked.add(job.flight)
    for flight in sorted(blocked):
        close_if_done(session, lab, flight)
    lanes = {BUILD_LANE: BUILDS_AT_ONCE - flights.count_hostless(session)}
    decided = plan([view.host for view in hosts.list_hosts(session)], requests, lanes=lanes, limit=lab.limit)
    for assignment in decided.start:
        _start(session, lab, assignment, queue[assignment.request], outputs[assignment.request])
    for waiting in decided.waiting:
        flights.set_job_reason(session, queue[waiting.request].flight, queue[waiting.request].name, waiting.reason)
    for name in decided.power_off:
        if hosts.clean_free_host(session, name):
            db.after_commit(session, partial(lab.dispatch.clean_host, name))
    return len(decided.start)


def needed_by(job: Job) -> Collection[tuple[int, str]]:
    """The jobs a job needs, as (flight, name)."""
    return needed(job.values, job.flight).values()


def _block(session: Session, lab: Lab, job: Job, reason: str) -> None:
    """End a job that can never run; jobs that need this one in turn are blocked at the next look."""
    if flights.set_job_status(
        session, job.flight, job.name, current=JobStatus.QUEUED, to=JobStatus.BLOCKED, reason=reason
    ):
        data = {"job": job.name, "status": JobStatus.BLOCKED.value}
        flights.add_event(session, kind="job", now=lab.clock(), flight=job.flight, data=data)
        db.after_commit(session, lab.bell.ring)


def _start(
    session: Session, lab: Lab, assignment: Assignment, waiting: Job, outputs: Mapping[str, str]
) -> None:
    flight, job = waiting.flight, waiting.name
    if not flights.set_job_status(session, flight, job, current=JobStatus.QUEUED, to=JobStatus.PREPARING):
        return  # aborted meanwhile
    now = lab.clock()
    token = secrets.token_hex(16)
    held = []
    for role, name in assignment.hosts.items():
        fence = hosts.fence_host(session, name)
        if fence is None:
            raise RuntimeError(f"host {name} was taken while the plan was made")  # the transaction rolls back
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
