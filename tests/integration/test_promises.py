"""Jobs beside what people were promised: a booked host is given up in time, and a preemptable lease makes way."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import PASSES, a_host, job_of, spec, start, submit
from test_leases import lease

from lab.context import Lab
from lab.db import estimates, leases
from lab.db.tables import BlockageRow
from lab.hosts.durations import ANY_CLASS
from lab.services.begin_leases import begin_leases
from lab.services.schedule import Scheduler

H = timedelta(hours=1)


@pytest.fixture
def one_host(new_lab) -> Lab:  # type: ignore[no-untyped-def]
    return new_lab(a_host("h1"))


def block(lab: Lab, begins: timedelta, ends: timedelta | None, why: str = "rack moves") -> None:
    now = lab.clock()
    with lab.sessions.begin() as session:
        until = now + ends if ends else None
        session.add(
            BlockageRow(host="h1", need="", begins=now + begins, ends=until, why=why, actor="ops", created=now)
        )


def took(lab: Lab, job: str, minutes: float) -> None:
    with lab.sessions.begin() as session:
        for _ in range(9):
            seconds = minutes * 60
            estimates.add_duration(session, job=job, recipe="r", place=ANY_CLASS, seconds=seconds, now=lab.clock())


def test_only_what_ends_in_time_starts_before_a_blockage(one_host: Lab) -> None:
    lab = one_host
    took(lab, "long", 60)
    took(lab, "short", 5)
    block(lab, timedelta(minutes=30), 2 * H)
    number = submit(lab, spec("long", PASSES), spec("short", PASSES))
    assert len(start(lab)) == 1
    long = job_of(lab, number, "long")
    assert job_of(lab, number, "short").last is not None, "it goes in front, and delays nobody"
    assert long.wait is not None
    assert long.wait.start is not None
    assert long.wait.start.p50 >= lab.clock() + timedelta(hours=2) - timedelta(minutes=1), "after the blockage"


def test_why_a_free_host_is_not_taken_is_told(one_host: Lab) -> None:
    lab = one_host
    took(lab, "long", 60)
    block(lab, timedelta(minutes=30), 2 * H)
    number = submit(lab, spec("long", PASSES))
    assert start(lab) == []
    wait = job_of(lab, number, "long").wait
    assert wait is not None
    assert wait.kind == "blockage_until"
    assert "h1 is free, but not from" in wait.text
    assert "rack moves" in wait.text
    assert "up to 70 min" in wait.text


def test_nothing_starts_within_a_blockage_and_its_end_is_told(one_host: Lab) -> None:
    lab = one_host
    block(lab, -H, H)
    number = submit(lab, spec("a"))
    assert start(lab) == []
    wait = job_of(lab, number, "a").wait
    assert wait is not None
    assert (wait.kind, wait.text.startswith("h1 is not to be had until")) == ("blockage_until", True)
    assert wait.start is not None


def test_of_an_endless_blockage_nobody_can_tell_when(one_host: Lab) -> None:
    lab = one_host
    block(lab, -H, None)
    number = submit(lab, spec("a"))
    assert start(lab) == []
    wait = job_of(lab, number, "a").wait
    assert wait is not None
    assert (wait.kind, wait.start) == ("blockage_until", None)
    assert "until further notice" in wait.text


def test_a_job_that_waits_gives_a_preemptable_lease_notice(one_host: Lab) -> None:
    lab = one_host
    lease(lab, preemptable=True, length=5 * H)
    scheduler = Scheduler(lab)
    with lab.sessions.begin() as session:
        begin_leases(session, lab)
        scheduler.load(session)
        scheduler.look(session)
        assert scheduler.wanted() == {}
    number = submit(lab, spec("a"))
    with lab.sessions.begin() as session:
        scheduler.follow(session)
        scheduler.look(session)
        begin_leases(session, lab, wanted=scheduler.wanted())
        (held,) = leases.going_leases(session)
    assert (held.notice_for, held.notice is not None) == (f"job {number}.a", True)
