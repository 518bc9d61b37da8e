"""Schedule: one snapshot, one plan, one short transaction that leases hosts and wakes workers."""

from __future__ import annotations

import secrets
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts
from lab.db import session as db
from lab.flights.requests import request_of
from lab.flights.status import JobStatus
from lab.hosts.planner import Assignment, plan

CLAIM_S = 60.0
"""How long an attempt waits for a worker to claim it before it counts as broken."""


def schedule(session: Session, lab: Lab) -> int:
    """Start every queued job that can start now; returns how many. The rest learn why they wait."""
    order = flights.job_order(session)
    queue = {job.id: job for job in flights.load_queue(session)}
    if not queue:
        return 0
    requests = []
    for job_id, job in queue.items():
        priority, position = order[job_id]
        requests.append(request_of(job, priority=priority, position=position))
    decided = plan([view.host for view in hosts.list_hosts(session)], requests)
    for assignment in decided.start:
        _start(session, lab, assignment, flight=queue[assignment.request].flight, job=queue[assignment.request].name)
    for waiting in decided.waiting:
        flights.set_job_reason(session, queue[waiting.request].flight, queue[waiting.request].name, waiting.reason)
    return len(decided.start)


def _start(session: Session, lab: Lab, assignment: Assignment, *, flight: int, job: str) -> None:
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
        session, flight, job, token=token, hosts=held, now=now, until=now + timedelta(seconds=CLAIM_S)
    )
    for _role, name, _fence, _reused in held:
        hosts.take_host(session, name, attempt=attempt, holder=f"{flight}.{job}", now=now)
    flights.add_event(
        session, kind="job", now=now, flight=flight, data={"job": job, "status": JobStatus.PREPARING.value}
    )
    db.after_commit(session, partial(lab.dispatch.run_job, attempt, token))
