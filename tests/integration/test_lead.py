"""The leader at work: a whole flight on two hosts, woken by the bell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import factories
import pytest
from factories import (
    PAIR,
    FakeMachines,
    Messages,
    a_host,
    doing,
    flight_of,
    host_of,
    later,
    spec,
    start,
    submit,
)
from sqlalchemy.exc import OperationalError

from lab.context import Lab
from lab.db import flights
from lab.db.bell import PostgresBell, SocketBell
from lab.db.waits import waits_written
from lab.flights.status import Blessing, JobStatus
from lab.flights.steps import StepContext
from lab.hosts.model import HostState
from lab.services.clean_host import clean_host
from lab.services.lead import remind
from lab.services.run_job import run_job


@dataclass
class Threads:
    """A dispatch with a thread per message; `lab` is set once it is known."""

    lab: Lab | None = None
    threads: list[threading.Thread] = field(default_factory=list)

    def run_job(self, attempt: int, token: str) -> None:
        self._start(run_job, attempt, token)

    def clean_host(self, host: str) -> None:
        self._start(clean_host, host)

    def _start(self, act: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=act, args=(self.lab, *args))
        self.threads.append(thread)
        thread.start()


@contextmanager
def leading(lab: Lab) -> Iterator[None]:
    try:
        with factories.leading(lab):
            yield
    finally:
        if isinstance(lab.dispatch, Threads):
            for thread in lab.dispatch.threads:
                thread.join(20)


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


@pytest.fixture
def busy_lab(new_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A lab with the bell that goes with its database, whose messages are acted upon."""
    lab = new_lab(a_host("h1"), a_host("h2"))
    engine = lab.sessions.kw["bind"]
    bell = PostgresBell(engine) if engine.dialect.name == "postgresql" else SocketBell(lab.settings.home)
    dispatch = Threads()
    lab = replace(lab, bell=bell, dispatch=dispatch)
    dispatch.lab = lab
    yield lab
    bell.close()


def test_a_whole_flight_runs_side_by_side_and_never_two_jobs_on_one_host(busy_lab: Lab) -> None:
    lab, now, most = busy_lab, [0], [0]
    counting = threading.Lock()
    machines = lab.machines
    assert isinstance(machines, FakeMachines)

    def works(ctx: StepContext) -> None:
        def work() -> None:
            with counting:
                now[0] += 1
                most[0] = max(most[0], now[0])
            end = time.monotonic() + 20
            while most[0] < 2 and time.monotonic() < end:  # the first one waits for company
                ctx.wait(0.02)
            with counting:
                now[0] -= 1

        machines[ctx.host().name].use(work)

    recipe = doing(works)
    with leading(lab):
        number = submit(lab, *(spec(f"j{n}", recipe) for n in range(5)), spec("pair", PAIR))
        until(lambda: flight_of(lab, number).finished)
        until(lambda: all(host_of(lab, name).state is HostState.FREE for name in ("h1", "h2")))
    flight = flight_of(lab, number)
    assert {job.name: job.status.value for job in flight.jobs} == {job.name: "pass" for job in flight.jobs}
    assert (flight.blessing, len(flight.jobs)) == (Blessing.PLAY, 6)
    assert most == [2], "jobs run side by side"
    assert all(not host.power.on for host in machines.hosts.values()), "hosts are off when the flight is over"


def test_the_bell_and_not_a_tick_starts_the_next_job(busy_lab: Lab) -> None:
    lab = busy_lab
    begun: dict[str, float] = {}

    def notes(ctx: StepContext) -> None:
        begun[ctx.job] = time.monotonic()

    recipe = doing(notes)
    with leading(lab):
        time.sleep(0.3)
        asked = time.monotonic()
        number = submit(lab, *(spec(f"j{n}", recipe, all_hostflags='name == "h1"') for n in range(3)))
        until(lambda: flight_of(lab, number).finished)
    attempts = [job.last for job in flight_of(lab, number).jobs]
    assert begun[f"{number}.j0"] - asked < 1
    for before, after in pairwise(attempts):
        assert before is not None
        assert after is not None
        assert before.finished is not None
        assert (after.started - before.finished).total_seconds() < 1


def test_the_leader_reaps_on_time_without_a_ring(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(retries=0)
    number = submit(lab, spec("a"))
    ((attempt, token),) = start(lab)
    with lab.sessions.begin() as session:
        until_then = lab.clock() + timedelta(seconds=60)
        assert flights.claim_attempt(session, attempt, token, worker="w", until=until_then)
    ahead = later(lab, 59)
    begun = time.monotonic()
    with leading(replace(ahead, bell=type(lab.bell)())):
        until(lambda: flight_of(lab, number).finished)
    assert time.monotonic() - begun < 5
    assert flight_of(lab, number).status is JobStatus.BROKEN


def test_the_leader_outlives_a_failure(lab: Lab) -> None:
    class Failing(Messages):
        failures = 2

        def run_job(self, attempt: int, token: str) -> None:
            if self.failures:
                self.failures -= 1
                raise ConnectionError("the broker is away")
            super().run_job(attempt, token)

    messages = Failing()
    clock, errors = lab.clock, iter([OperationalError("x", None, OSError("gone")), RuntimeError("taken")])

    def failing_clock():  # type: ignore[no-untyped-def]
        if threading.current_thread() is not threading.main_thread() and (error := next(errors, None)):
            raise error
        return clock()

    lab = replace(lab, dispatch=messages)
    number = submit(lab, spec("a"))
    with leading(replace(lab, clock=failing_clock)):
        until(lambda: flight_of(lab, number).jobs[0].status is JobStatus.PREPARING)
    assert messages.jobs == [], "the first message was lost"
    with pytest.raises(ConnectionError):
        remind(later(lab, 100))
    remind(later(lab, 100))
    assert len(messages.jobs) == 1, "rows do not get lost"


def test_what_a_worker_should_have_heard_long_ago_is_said_again(lab: Lab) -> None:
    submit(lab, spec("a"))
    first = start(lab)
    messages = lab.dispatch
    assert isinstance(messages, Messages)
    remind(lab)
    assert messages.jobs == first, "it is not late yet"
    remind(later(lab, 30))
    assert messages.jobs == first * 2
    with lab.reads() as session:
        assert flights.unclaimed_attempts(session, before=later(lab, 30).clock()) == first


def test_the_leader_tells_why_jobs_wait_and_that_they_wait_no_more(busy_lab: Lab) -> None:
    lab, go_on = busy_lab, threading.Event()

    def works(ctx: StepContext) -> None:
        while not go_on.is_set():
            ctx.wait(0.02)

    recipe = doing(works)
    with leading(lab):
        number = submit(lab, *(spec(f"j{n}", recipe) for n in range(3)))
        until(lambda: any(job.wait for job in flight_of(lab, number).jobs))
        waiting = [job for job in flight_of(lab, number).jobs if job.status is JobStatus.QUEUED]
        assert [job.wait.text for job in waiting if job.wait] == [job.reason for job in waiting] != []
        go_on.set()
        until(lambda: flight_of(lab, number).finished)
        until(lambda: not written(lab))
    with lab.reads() as session:
        assert "plan" in {kind for _id, kind, _data in flights.events_after(session, 0)}


def written(lab: Lab) -> int:
    with lab.reads() as session:
        return len(waits_written(session))
