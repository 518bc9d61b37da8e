"""The clock of the day jumps, or a host leaves the lab's file, while somebody holds a host: nobody is harmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from factories import Clock, a_host, doing, flight_of, host_of, job_of, run_all, spec, start, submit
from sqlalchemy import update
from test_lead import Threads, leading, until

from lab.context import Lab
from lab.db import flights, hosts
from lab.db.tables import AttemptRow
from lab.flights.status import JobStatus
from lab.flights.steps import StepContext
from lab.hosts.model import HostState
from lab.services.run_job import run_job
from lab.services.show_plan import show_plan


def acting(lab: Lab) -> Lab:
    dispatch = Threads()
    dispatch.lab = lab = replace(lab, dispatch=dispatch)
    return lab


def test_a_living_worker_keeps_its_job_when_the_clock_jumps_ahead(new_lab: Callable[..., Lab]) -> None:
    lab = acting(new_lab(a_host("h1"), lease_s=2.0))
    begun, go_on = threading.Event(), threading.Event()

    def works(ctx: StepContext) -> None:
        begun.set()
        while not go_on.is_set():
            ctx.wait(0.05)

    with leading(lab):
        number = submit(lab, spec("a", doing(works)))
        assert begun.wait(20)
        clock = lab.clock
        assert isinstance(clock, Clock)
        clock.ahead = timedelta(hours=3)
        for _ in range(15):  # the leader looks again and again, also before the worker has renewed its hold
            lab.bell.ring()
            time.sleep(0.1)
        assert len(job_of(lab, number, "a").attempts) == 1
        go_on.set()
        until(lambda: flight_of(lab, number).finished)
    job = job_of(lab, number, "a")
    assert (job.status, len(job.attempts)) == (JobStatus.PASS, 1)


def test_a_hold_from_a_clock_that_was_ahead_does_not_outlive_its_worker_by_hours(lab: Lab) -> None:
    submit(lab, spec("a"), spec("b"))
    (ahead, _), (right, _) = start(lab)
    now = lab.clock()
    with lab.sessions.begin() as session:
        session.execute(update(AttemptRow).where(AttemptRow.id == ahead).values(until=now + timedelta(hours=3)))
        assert flights.cut_holds(session, now + timedelta(seconds=60), beyond=now + timedelta(seconds=120)) == 1
        assert flights.expired_attempts(session, now) == []
        expired = flights.expired_attempts(session, now + timedelta(seconds=61))
        assert {row.id for row in expired} == {ahead, right}


def test_a_leased_host_that_leaves_the_file_is_kept_to_the_end_and_then_nobodys(lab: Lab) -> None:
    number = submit(lab, spec("a", all_hostflags='name == "h1"'), spec("b", all_hostflags='name == "h1"'))
    ((attempt, token),) = start(lab)
    with lab.sessions.begin() as session:
        hosts.sync_hosts(session, [a_host("h2")])  # as at the next start with another file
    with lab.reads() as session:
        (gone, _other) = show_plan(session, lab, ahead=timedelta(hours=1)).hosts
    assert (gone.host.name, gone.host.health_reason) == ("h1", "no longer in the lab's file")
    assert [span.who for span in gone.spans if span.kind == "job"] == [f"{number}.a"]
    assert run_job(lab, attempt, token) is JobStatus.PASS
    assert start(lab) == []
    waits = job_of(lab, number, "b")
    assert waits.status is JobStatus.QUEUED
    assert "no host matches" in waits.reason
    with lab.sessions.begin() as session:
        hosts.sync_hosts(session, lab.hosts)
    assert host_of(lab, "h1").state is HostState.FREE
    assert run_all(lab) == [JobStatus.PASS]
    assert flight_of(lab, number).status is JobStatus.PASS
