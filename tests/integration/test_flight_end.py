"""When a flight is expected to end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import later, run_all, spec, start, submit

from lab.context import Lab
from lab.db.waits import save_waits
from lab.flights.model import Wait, Window
from lab.services.flight_end import expected_ends


def ends(lab: Lab, *flights: int) -> dict[int, Window]:
    with lab.reads() as session:
        return expected_ends(session, lab, flights)


def test_a_flight_ends_with_the_last_of_its_jobs_and_nobody_knows_when_while_one_waits_unseen(lab: Lab) -> None:
    flight = submit(lab, spec("one"), spec("two"), spec("three"))
    assert ends(lab, flight) == {}
    start(lab)  # two hosts: one job waits, and the leader has said for how long
    assert ends(lab, flight)[flight].p50 > lab.clock()
    now = lab.clock()
    window = Window(p50=now + timedelta(hours=5), p90=now + timedelta(hours=9))
    with lab.sessions.begin() as session:
        for job in ("one", "two", "three"):
            save_waits(session, {(flight, job): Wait(kind="x", text="", end=window)}, now)
    assert ends(lab, flight) == {flight: window}
    assert ends(lab) == {}
    assert ends(lab, flight + 1) == {}


def test_a_running_job_takes_as_long_as_it_did(lab: Lab) -> None:
    first = submit(lab, spec("one"))
    run_all(later(lab, 0))
    flight = submit(lab, spec("one"))
    start(lab)
    found = ends(lab, first, flight)
    assert set(found) == {flight}  # the first one has ended
    assert (found[flight].p50 - lab.clock()).total_seconds() == pytest.approx(0, abs=30)
