"""Jobs that would hold their flight up are given up, are seen to be, and let it end."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from factories import flight_of, job_of, later, leading, run_all, spec, start, submit

from lab.context import Lab
from lab.db import hosts
from lab.flights.coverage import coverage_of, unmet
from lab.flights.model import JobKey, Wait, Window
from lab.flights.starvation import StarvationRule
from lab.flights.status import JobStatus
from lab.hosts.model import Health
from lab.services.run_job import run_job
from lab.services.starve import starve_jobs


def starve(lab: Lab, *expected: tuple[JobKey, Wait]) -> int:
    with lab.sessions.begin() as session:
        return starve_jobs(session, lab, dict(expected))


def a_flight_with_one_left(lab: Lab) -> int:
    """Nine jobs have passed on h1, the tenth needs h2, which is out of use."""
    with lab.sessions.begin() as session:
        hosts.set_health(session, "h2", Health.MAINTENANCE, reason="a new disk", actor="ann", now=lab.clock())
    names = [f"j{number}" for number in range(9)]
    flight = submit(
        lab, *(spec(name, arch="amd64") for name in names), spec("last", arch="arm64", all_hostflags='name == "h2"')
    )
    for _ in names:
        run_all(lab)
    return flight


def last_in(flight: int, hours: float | None, lab: Lab) -> tuple[JobKey, Wait]:
    """The last job of the flight is expected to have ended in so many hours; None: nobody can tell."""
    end = Window(p50=lab.clock() + timedelta(hours=hours), p90=lab.clock()) if hours is not None else None
    return (flight, "last"), Wait(kind="waiting_for_host", text="waiting", data={}, place=1, start=end, end=end)


def test_a_job_that_would_hold_its_flight_up_is_given_up_and_the_flight_ends(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    assert starve(lab, last_in(flight, 1, lab)) == 0, "an hour is no reason"
    assert starve(lab, last_in(flight, 12, lab)) == 1
    job, whole = job_of(lab, flight, "last"), flight_of(lab, flight)
    assert job.status is JobStatus.STARVED
    assert "it would run until 12 h 0" in job.reason
    assert (whole.status, whole.finished is not None) == (JobStatus.STARVED, True)
    assert starve(lab, last_in(flight, 12, lab)) == 0
    short = unmet(whole, {"*": {"arm64": 0.5, "amd64": 1.0}})
    assert short == ("arm64: 0 of 1 jobs came to a verdict, 50% are demanded",)
    assert coverage_of(whole, {"trial": {}, "*": {"arm64": 0.5}})[1].enough, "the branch's own demands count"


def test_a_job_of_which_nobody_knows_when_it_could_run_is_given_up_in_the_end(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    late = later(lab, 5 * 3600)
    assert starve(lab, last_in(flight, None, lab)) == 0
    assert starve(late) == 0, "the leader has not thought about it yet"
    assert starve(late, last_in(flight, None, late)) == 1
    assert "nothing tells when it could run" in job_of(lab, flight, "last").reason


def test_it_can_be_switched_off_and_flights_at_work_are_left_alone(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    late = later(lab, 1e6)
    last = last_in(flight, None, late)
    assert starve(replace(late, starvation=StarvationRule(factor=0)), last) == 0
    young = submit(lab, spec("last"), spec("one"))
    assert starve(late, last, last_in(young, None, late)) == 1, "the old flight's last job alone"


def test_a_job_that_is_about_to_run_is_not_given_up_because_the_lab_was_down(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    monday = later(lab, 60 * 3600)
    assert starve(monday, last_in(flight, 0, monday)) == 0
    assert job_of(lab, flight, "last").status is JobStatus.QUEUED


def test_a_flight_of_which_something_runs_is_not_held_up_by_what_waits(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        hosts.set_health(session, "h2", Health.MAINTENANCE, reason="a new disk", actor="ann", now=lab.clock())
    flight = submit(lab, spec("one"), spec("two"), spec("last", all_hostflags='name == "h2"'))
    run_all(lab)
    [(attempt, token)] = start(lab)
    late = replace(later(lab, 5 * 3600), starvation=StarvationRule(done_share=0.3))
    assert starve(late, last_in(flight, None, late)) == 0
    run_job(lab, attempt, token)
    late = replace(later(lab, 5 * 3600), starvation=StarvationRule(done_share=0.3))
    assert starve(late, last_in(flight, None, late)) == 1


def test_the_leader_gives_up_what_it_does_not_expect_to_run(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    with leading(later(lab, 5 * 3600)):
        for _ in range(200):
            if flight_of(lab, flight).finished is not None:
                break
            time.sleep(0.05)
    assert job_of(lab, flight, "last").status is JobStatus.STARVED
    assert flight_of(lab, flight).finished is not None
