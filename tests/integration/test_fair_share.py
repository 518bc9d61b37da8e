"""A tenant that floods the queue delays another one by no more than is promised: the real scheduler, fake machines."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from factories import PASSES, Clock, a_host, make_lab, spec, submit

from lab.context import Lab
from lab.db import flights
from lab.db.queue import load_running
from lab.flights.status import JobStatus
from lab.services.schedule import Scheduler
from lab.services.settle import settle_attempt

HOSTS = 4
LENGTH = timedelta(minutes=10)


@pytest.fixture
def lab(tmp_path: Path, sqlite_template: Path) -> Lab:
    shutil.copy(sqlite_template, tmp_path / "lab.db")
    return make_lab(f"sqlite:///{tmp_path}/lab.db", tmp_path / "home", [a_host(f"h{n}") for n in range(HOSTS)])


def end_all(lab: Lab) -> Counter[str]:
    """Every running job passes; how many of each tenant did."""
    with lab.sessions.begin() as session:
        running = list(load_running(session))
        for one in running:
            row = flights.find_attempt(session, one.attempt)
            assert row is not None
            flights.set_job_status(session, one.flight, one.job, current=JobStatus.PREPARING, to=JobStatus.RUNNING)
            settle_attempt(session, lab, row, token=row.token, status=JobStatus.PASS, reason="", clean=False)
    return Counter(one.tenant for one in running)


def test_ten_jobs_of_one_tenant_do_not_wait_for_ten_thousand_of_another(lab: Lab) -> None:
    clock = lab.clock
    assert isinstance(clock, Clock)
    scheduler = Scheduler(lab)

    def look() -> None:
        more = True
        while more:
            with lab.sessions.begin() as session:
                more = scheduler.follow(session)
        with lab.sessions.begin() as session:
            scheduler.look(session)

    with lab.sessions.begin() as session:
        scheduler.load(session)
    for first in range(0, 10_000, 2_000):
        submit(lab, *(spec(f"a{n}", PASSES) for n in range(first, first + 2_000)), tenant="flood")
    look()
    clock.ahead += LENGTH
    assert end_all(lab) == {"flood": HOSTS}
    submit(lab, *(spec(f"b{n}", PASSES) for n in range(10)), tenant="small")
    served: list[Counter[str]] = []
    while sum(each["small"] for each in served) < 10:
        assert len(served) < 20, served
        look()
        clock.ahead += LENGTH
        served.append(end_all(lab))
    assert served[0]["small"] > 0, "a host that is set free goes to who has used least"
    # With equal shares at least every other host is the small one's while it waits.
    assert len(served) <= math.ceil(10 / (HOSTS / 2)), served
    assert all(sum(each.values()) == HOSTS for each in served), "and no host stands idle"
