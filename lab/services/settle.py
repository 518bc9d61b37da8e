"""Settle: end an attempt, decide what its job does next, give its hosts back, and close a flight that is done.

Every way an attempt can end comes through here, so that no host is ever forgotten: the worker that ran it, the
reaper that found its worker dead, and a person who aborted it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates, flights, hosts
from lab.db import session as db
from lab.db.tables import AttemptRow, FlightRow
from lab.flights.recipe import STOP_AFTER
from lab.flights.status import Blessing, JobStatus, StepStatus
from lab.hosts.durations import host_class
from lab.hosts.model import HostState
from lab.services.judge_host import judge_hosts, note_power_failure, switch_off_unused
from lab.services.regression_life import note_failures
from lab.services.sites import note_silence


def settle_attempt(
    session: Session,
    lab: Lab,
    row: AttemptRow,
    *,
    token: str,
    status: JobStatus,
    reason: str,
    clean: bool,
    setups: Mapping[str, str] | None = None,
    blames: str | None = None,
    power_failure: str = "",
) -> bool:
    """End an attempt under its token; False when it is no longer the caller's to end.

    With `clean` its hosts are powered off by a worker before they are free again; else they are free at once, set up
    as `setups` says (host -> key; a host that is not in it counts as not set up). `blames` is the host on which it
    broke, if it broke on one, and `power_failure` says what became of the power command that broke it.
    """
    now = lab.clock()
    if not flights.set_attempt_status(session, row.id, token, status, reason=reason, finished=now, blames=blames):
        return False
    closing = StepStatus.ABORTED if status is JobStatus.ABORTED else StepStatus.BROKEN
    flights.end_running_steps(session, row.id, closing, reason=reason, now=now)
    state = HostState.CLEANING if clean else HostState.FREE
    names = hosts.release_hosts(session, row.id, state=state, setups=dict(setups or {}), flight=row.flight, now=now)
    if clean:
        for name in names:
            db.after_commit(session, partial(lab.dispatch.clean_host, name))
    if row.hosts:
        _account(session, lab, row, status)
        if blames is not None and power_failure:
            note_power_failure(session, lab, blames, power_failure, during=f"{row.flight}.{row.job}")
        judge_hosts(session, lab, row, status, blames=blames)
        switch_off_unused(session, lab, names)
    if status in (JobStatus.FAIL, JobStatus.BROKEN):
        branch = flights.branch_of(session, row.flight)
        note_failures(session, lab, attempt=row.id, branch=branch, flight=row.flight, job=row.job)
    _move_job(session, lab, row, status, reason)
    close_if_done(session, lab, row.flight)
    db.after_commit(session, lab.bell.ring)
    return True


def _account(session: Session, lab: Lab, row: AttemptRow, status: JobStatus) -> None:
    """Charge the tenant for the hosts, and remember how long the job took when it took its course."""
    now = lab.clock()
    seconds = max(0.0, (now - row.started).total_seconds())
    tenant, recipe = flights.tenant_and_recipe(session, row.flight, row.job)
    half_life_s = lab.scheduler.usage_half_life_s
    if status in (JobStatus.PASS, JobStatus.FAIL):
        place = host_class(hosts.find_host(session, row.hosts[0].host))
        if not flights.runvar_of(session, row.flight, row.job, STOP_AFTER):  # one that was cut short says nothing
            estimates.add_duration(session, job=row.job, recipe=recipe, place=place, seconds=seconds, now=now)
        for held in sorted(row.hosts, key=lambda one: one.host):  # in one order, so that nobody waits in a circle
            estimates.add_last_run(session, job=row.job, host=held.host, failed=status is JobStatus.FAIL, now=now)
    estimates.charge(session, tenant, seconds * len(row.hosts), half_life_s=half_life_s, now=now)


def _move_job(session: Session, lab: Lab, row: AttemptRow, status: JobStatus, reason: str) -> None:
    """A broken attempt goes back to the queue while retries last; anything else is the job's outcome.

    An attempt that no worker took up is none of the job's: it does not count.
    """
    current = flights.job_status(session, row.flight, row.job)
    if current.final:
        return  # aborted by a person meanwhile
    to = status
    if status is JobStatus.BROKEN and flights.count_tries(session, row.flight, row.job) <= lab.settings.retries:
        to, reason = JobStatus.QUEUED, f"attempt {row.number} was broken: {reason}"
    flights.set_job_status(session, row.flight, row.job, current=current, to=to, reason=reason)
    flights.add_event(
        session, kind="job", now=lab.clock(), flight=row.flight, data={"job": row.job, "status": to.value}
    )


def give_up(session: Session, lab: Lab, flight: int, job: str, status: JobStatus, reason: str) -> bool:
    """End a queued job without a try; False when it is not queued any more. What needs it learns by its marks."""
    if not flights.set_job_status(session, flight, job, current=JobStatus.QUEUED, to=status, reason=reason):
        return False
    data = {"job": job, "status": status.value}
    flights.add_event(session, kind="job", now=lab.clock(), flight=flight, data=data)
    db.after_commit(session, lab.bell.ring)
    return True


def close_if_done(session: Session, lab: Lab, flight: int) -> None:
    """When every job has ended and no host is held: bless the flight and have its hosts powered off."""
    session.flush()
    if flights.has_work(session, flight):
        return
    status = flights.status_of(session, flight)
    blessing = Blessing.BROKEN if status is JobStatus.ABORTED else None
    now = lab.clock()
    if flights.close_flight(session, flight, blessing=blessing, now=now):
        flights.add_event(session, kind="flight", now=now, flight=flight, data={"status": status.value})
        for name in hosts.start_cleaning(session, flight):
            db.after_commit(session, partial(lab.dispatch.clean_host, name))


def abort_flight(session: Session, lab: Lab, flight: int, *, reason: str) -> bool:
    """Stop a flight: waiting jobs end at once, running ones as soon as their worker notices; False if it had ended.

    What was found so far stays. Hosts are powered off.
    """
    if session.get(FlightRow, flight) is None:
        flights.load_flight(session, flight)  # raises with the right words
    changed = False
    for job in flights.load_flight(session, flight).jobs:
        current = job.status
        while not current.final:
            if flights.set_job_status(session, flight, job.name, current=current, to=JobStatus.ABORTED, reason=reason):
                changed = True
            current = flights.job_status(session, flight, job.name)  # it may have moved on meanwhile
    for row in flights.active_attempts(session, flight):
        if not row.worker:  # nobody has begun: there is nothing to wait for
            settle_attempt(session, lab, row, token=row.token, status=JobStatus.ABORTED, reason=reason, clean=True)
    if changed:
        flights.add_event(
            session, kind="flight", now=lab.clock(), flight=flight, data={"status": JobStatus.ABORTED.value}
        )
    close_if_done(session, lab, flight)
    db.after_commit(session, lab.bell.ring)
    return changed


def reap(session: Session, lab: Lab) -> int:
    """End the attempts whose worker fell silent; returns how many. Their hosts are powered off before anybody else."""
    count = 0
    for row in flights.expired_attempts(session, lab.clock()):
        reason = "no worker took it" if not row.worker else f"its worker {row.worker} fell silent"
        if not row.worker:
            note_silence(session, lab, row.site, f"no worker took {row.flight}.{row.job}")
        count += settle_attempt(session, lab, row, token=row.token, status=JobStatus.BROKEN, reason=reason, clean=True)
    return count
