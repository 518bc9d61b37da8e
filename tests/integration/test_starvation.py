"""Jobs that would hold their flight up are given up, are seen to be, and let it end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from factories import flight_of, job_of, later, run_all, spec, submit

from lab.context import Lab
from lab.db import hosts
from lab.db.waits import save_waits
from lab.flights.coverage import coverage_of
from lab.flights.model import Wait, Window
from lab.flights.starvation import StarvationRule
from lab.flights.status import JobStatus
from lab.hosts.model import Health
from lab.services.starve import starve_jobs


def starve(lab: Lab) -> int:
    with lab.sessions.begin() as session:
        return starve_jobs(session, lab)


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


def expect(lab: Lab, flight: int, job: str, hours: float) -> None:
    end = lab.clock() + timedelta(hours=hours)
    wait = Wait(
        kind="waiting_for_host", text="waiting", data={}, place=1, start=Window(p50=end, p90=end),
        end=Window(p50=end, p90=end), hosts={}, updated=lab.clock(),
    )  # fmt: skip
    with lab.sessions.begin() as session:
        save_waits(session, {(flight, job): wait}, lab.clock())


def test_a_job_that_would_hold_its_flight_up_is_given_up_and_the_flight_ends(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    expect(lab, flight, "last", 1)
    assert starve(lab) == 0, "an hour is no reason"
    expect(lab, flight, "last", 12)
    assert starve(lab) == 1
    job, whole = job_of(lab, flight, "last"), flight_of(lab, flight)
    assert job.status is JobStatus.STARVED
    assert "it would run until 12 h 0" in job.reason
    assert (whole.status, whole.finished is not None) == (JobStatus.STARVED, True)
    assert starve(lab) == 0
    short = [one for one in coverage_of(whole, {"*": {"arm64": 0.5, "amd64": 1.0}}) if not one.enough]
    assert [str(one) for one in short] == ["arm64: 0 of 1 jobs came to a verdict, 50% are demanded"]
    assert coverage_of(whole, {"trial": {}, "*": {"arm64": 0.5}})[1].enough, "the branch's own demands count"


def test_a_job_of_which_nobody_knows_when_it_could_run_is_given_up_in_the_end(lab: Lab) -> None:
    flight = a_flight_with_one_left(lab)
    assert starve(lab) == 0
    assert starve(later(lab, 5 * 3600)) == 1
    assert "nothing tells when it could run" in job_of(lab, flight, "last").reason


def test_it_can_be_switched_off_and_flights_at_work_are_left_alone(lab: Lab) -> None:
    a_flight_with_one_left(lab)
    late = later(lab, 1e6)
    assert starve(replace(late, starvation=StarvationRule(factor=0))) == 0
    submit(lab, spec("young"), spec("one"))
    assert starve(late) == 1, "the old flight's last job alone"
