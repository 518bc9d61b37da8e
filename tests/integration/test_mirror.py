"""The leader's memory is always what a new leader would read, whoever wrote what in which order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from factories import PAIR, PASS, PASSES, a_host, a_recipe, doing, host_of, spec, submit
from sqlalchemy import update

from lab.context import Lab
from lab.db import flights, hosts
from lab.db.queue import load_running
from lab.db.tables import HostRow
from lab.errors import StepFailure
from lab.flights.recipe import run
from lab.flights.status import JobStatus
from lab.flights.steps import StepContext
from lab.hosts.durations import Estimate
from lab.hosts.model import Health, HostState
from lab.services.clean_host import clean_host
from lab.services.mirror import Mirror
from lab.services.schedule import Scheduler
from lab.services.settle import abort_flight, settle_attempt


def remembered(mirror: Mirror) -> dict[str, Any]:
    """All but the estimates, which are those of when a job came into the queue."""
    return {
        "ready": {name: replace(waiting.request, estimate=Estimate()) for name, waiting in mirror.ready.items()},
        "blocked": {name: replace(one.request, estimate=Estimate()) for name, one in mirror.blocked.items()},
        "hosts": dict(mirror.hosts),
        "running": dict(mirror.running),
        "lines": mirror.allocator.queue._lines,
        "fleet": dict(mirror.allocator.fleet.hosts),
        "set-ups": mirror.allocator.queue._set_up,
    }


def fresh(lab: Lab) -> dict[str, Any]:
    mirror = Mirror(lab)
    with lab.sessions() as session:
        mirror.load(session)
        session.rollback()  # the marks stay
    return remembered(mirror)


def fails(_ctx: StepContext) -> None:
    raise StepFailure("no")


@pytest.mark.parametrize("seed", range(2))
def test_after_whatever_happened_the_memory_is_what_is_written(new_lab: Callable[..., Lab], seed: int) -> None:
    lab = new_lab(*(a_host(f"h{number}") for number in range(4)), retries=1)
    chance = random.Random(seed)
    scheduler = Scheduler(lab)
    numbers: list[int] = []
    recipes = [PASSES, PAIR, doing(fails), a_recipe(run(PASS, "x"), roles=())]

    def submits() -> None:
        jobs = [spec(f"j{number}", chance.choice(recipes)) for number in range(chance.randrange(1, 4))]
        numbers.append(submit(lab, *jobs, tenant=chance.choice(["ann", "bob"]), priority=chance.randrange(2)))

    def ends() -> None:
        with lab.sessions.begin() as session:
            for one in load_running(session):
                if chance.random() < 0.5:
                    row = flights.find_attempt(session, one.attempt)
                    assert row is not None
                    status = chance.choice([JobStatus.FAIL, JobStatus.BROKEN])
                    clean = chance.random() < 0.5
                    settle_attempt(session, lab, row, token=row.token, status=status, reason="", clean=clean)

    def cleans() -> None:
        for name in list(lab.machines.hosts):  # type: ignore[attr-defined]
            clean_host(lab, name)

    def aborts() -> None:
        if numbers:
            with lab.sessions.begin() as session:
                abort_flight(session, lab, chance.choice(numbers), reason="enough")

    def sickens() -> None:
        health = chance.choice([Health.GOOD, Health.QUARANTINED, Health.SUSPECT])
        with lab.sessions.begin() as session:
            hosts.set_health(session, f"h{chance.randrange(4)}", health, reason="", actor="me", now=lab.clock())

    def rewrites() -> None:
        kept = [replace(host, site=chance.choice(["default", "north"])) for host in lab.hosts if chance.random() < 0.8]
        with lab.sessions.begin() as session:
            hosts.sync_hosts(session, kept)

    with lab.sessions.begin() as session:
        scheduler.load(session)
    for _ in range(40):
        chance.choice([submits, submits, ends, ends, cleans, aborts, sickens, rewrites])()
        more = True
        while more:
            with lab.sessions.begin() as session:
                more = scheduler.mirror.follow(session, limit=chance.choice([1, 3, 1000]))
        assert remembered(scheduler.mirror) == fresh(lab)
        with lab.sessions.begin() as session:
            scheduler.look(session)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_what_commits_late_is_not_missed(lab: Lab) -> None:
    """Numbers are given out when a row is written, not when it is committed: the later number may be seen first."""
    scheduler = Scheduler(lab)
    with lab.sessions.begin() as session:
        scheduler.load(session)
    slow = lab.sessions()
    try:
        hosts.set_health(slow, "h1", Health.QUARANTINED, reason="", actor="me", now=lab.clock())
        slow.flush()  # its mark has its number, and nobody sees it yet
        with lab.sessions.begin() as session:
            hosts.set_health(session, "h2", Health.SUSPECT, reason="", actor="me", now=lab.clock())
        with lab.sessions.begin() as session:
            scheduler.follow(session)
        assert {host.name: host.health for host in scheduler.mirror.hosts.values()} == {
            "h1": Health.GOOD,
            "h2": Health.SUSPECT,
        }
        slow.commit()
    finally:
        slow.close()
    with lab.sessions.begin() as session:
        scheduler.follow(session)
    assert scheduler.mirror.hosts["h1"].health is Health.QUARANTINED


def test_a_host_that_somebody_took_meanwhile_is_refused_and_remembered(lab: Lab) -> None:
    scheduler = Scheduler(lab)
    submit(lab, spec("a"), spec("b"))
    with lab.sessions.begin() as session:
        scheduler.load(session)
    with lab.sessions.begin() as session:
        assert hosts.fence_host(session, "h1") is not None
    with lab.sessions.begin() as session:  # the mark is there, and not followed
        assert scheduler.look(session) == 1
    with lab.reads() as session:
        running = list(load_running(session))
    assert [dict(one.hosts) for one in running] == [{"host": "h2"}]
    assert host_of(lab, "h1").state is HostState.LEASED
    with lab.sessions.begin() as session:
        scheduler.follow(session)
    assert remembered(scheduler.mirror) == fresh(lab)
    with lab.sessions.begin() as session:
        session.execute(update(HostRow).where(HostRow.name == "h1").values(state=HostState.FREE.value))
    with lab.sessions.begin() as session:
        scheduler.follow(session)
        assert scheduler.look(session) == 1, "it was not forgotten"
