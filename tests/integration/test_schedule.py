"""Scheduling, settling, aborting, reaping, cleaning: who gets which host, and how it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from factories import (
    BOOT,
    PAIR,
    PASSES,
    Messages,
    a_host,
    a_recipe,
    a_step,
    boot,
    doing,
    flight_of,
    host_of,
    job_of,
    later,
    run_all,
    spec,
    start,
    submit,
)

from lab.context import Lab
from lab.db import flights, hosts
from lab.errors import ConfigError, InfraError, NotFoundError, StepFailure
from lab.flights.recipe import run
from lab.flights.status import Blessing, JobStatus, StepStatus
from lab.flights.steps import StepContext
from lab.hosts.model import Health, HostState
from lab.hosts.slots import Limit
from lab.services.clean_host import clean_host
from lab.services.run_job import run_job
from lab.services.schedule import Scheduler, schedule
from lab.services.settle import abort_flight, close_if_done, reap
from lab.services.sites import note_answer

P, R = JobStatus.PASS, JobStatus.RUNNING


def clean_all(lab: Lab) -> None:
    with lab.reads() as session:
        dirty = hosts.cleaning_hosts(session)
    for name in dirty:
        clean_host(lab, name)


def reaped(lab: Lab, seconds: float = 1000) -> int:
    with lab.sessions.begin() as session:
        return reap(session, later(lab, seconds))


def abort(lab: Lab, flight: int) -> bool:
    with lab.sessions.begin() as session:
        return abort_flight(session, lab, flight, reason="enough")


def messages(lab: Lab) -> Messages:
    assert isinstance(lab.dispatch, Messages)
    return lab.dispatch


def fails(ctx: StepContext) -> None:
    """Xen did wrong."""
    raise StepFailure("Xen did wrong")


def breaks(ctx: StepContext) -> None:
    """The lab did."""
    raise InfraError("the disk is full")


# --- schedule


def test_jobs_get_hosts_while_there_are_and_the_rest_learn_why_not(lab: Lab) -> None:
    number = submit(lab, spec("a"), spec("b"), spec("c"))
    assert len(start(lab)) == 2
    jobs = flight_of(lab, number).jobs
    assert [job.status for job in jobs] == [JobStatus.PREPARING, JobStatus.PREPARING, JobStatus.QUEUED]
    assert jobs[2].reason == "waiting for h1, h2"
    assert [host_of(lab, name).state for name in ("h1", "h2")] == [HostState.LEASED] * 2
    assert start(lab) == []
    assert job_of(lab, number, "c").reason == "waiting for h1, h2"


def test_a_pair_starts_with_both_hosts_or_waits(lab: Lab) -> None:
    first = submit(lab, spec("one"))
    start(lab)
    second, third = submit(lab, spec("pair", PAIR)), submit(lab, spec("late"))
    assert start(lab) == []
    assert [job_of(lab, *job).reason for job in ((second, "pair"), (third, "late"))] == [
        "waiting for h1",
        "waiting for h1; 1 ahead of it",
    ]
    with lab.reads() as session:
        ((attempt, token),) = flights.unclaimed_attempts(session, before=later(lab, 9).clock())
    assert run_job(lab, attempt, token) is P
    clean_all(lab)
    assert run_all(lab) == [P]
    assert job_of(lab, second, "pair").last.hosts == {"a": "h1", "b": "h2"}  # type: ignore[union-attr]
    assert flight_of(lab, first).blessing is Blessing.PLAY


def test_a_job_nobody_can_serve_any_more_waits_with_the_reason(lab: Lab) -> None:
    number = submit(lab, spec("a", all_hostflags='name == "h1"'))
    with lab.sessions.begin() as session:
        hosts.set_health(session, "h1", Health.QUARANTINED, reason="fan", actor="me", now=lab.clock())
    assert start(lab) == []
    assert "h1 is quarantined" in job_of(lab, number, "a").reason


def test_an_urgent_flight_goes_first(lab: Lab) -> None:
    submit(lab, spec("a"), spec("b"))
    urgent = submit(lab, spec("u"), priority=-1)
    start(lab)
    assert job_of(lab, urgent, "u").status is JobStatus.PREPARING


def test_nothing_is_dispatched_when_the_transaction_is_rolled_back(lab: Lab) -> None:
    submit(lab, spec("a"))
    with lab.sessions() as session:
        assert schedule(session, lab) == 1
        session.rollback()
    assert messages(lab).jobs == []
    assert host_of(lab, "h1").state is HostState.FREE


def test_a_job_aborted_while_the_plan_was_made_is_not_started(lab: Lab) -> None:
    number = submit(lab, spec("a"))
    scheduler = Scheduler(lab)
    with lab.sessions.begin() as session:
        scheduler.load(session)
    abort(lab, number)
    with lab.sessions.begin() as session:
        assert scheduler.look(session) == 0
    assert host_of(lab, "h1").state is HostState.FREE
    assert messages(lab).jobs == []
    assert flight_of(lab, number).status is JobStatus.ABORTED


# --- a limit on how many hosts run


def test_a_host_that_stands_ready_makes_room_for_one_that_is_asked_for(lab: Lab) -> None:
    small = replace(lab, limit=Limit(hosts=frozenset({"h1", "h2"}), running=1))
    number = submit(small, spec("one"), spec("two", all_hostflags='name == "h2"'))
    assert run_all(small) == [P]
    assert (host_of(small, "h1").state, bool(host_of(small, "h1").setup_key)) == (HostState.FREE, True)
    assert start(small) == []
    assert job_of(small, number, "two").reason == "waiting for a place: at most one host runs at one time (now h1)"
    assert host_of(small, "h1").state is HostState.CLEANING
    assert messages(small).cleans == ["h1"]
    assert start(small) == []  # it still runs
    clean_all(small)
    assert run_all(small) == [P]
    assert job_of(small, number, "two").status is JobStatus.PASS


def test_a_job_that_needs_more_hosts_than_may_run_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="needs 2 hosts at one time, which is more than the lab lets run at once"):
        submit(replace(lab, limit=Limit(hosts=frozenset({"h1", "h2"}), running=1)), spec("pair", PAIR))


# --- reuse


def test_a_host_is_reused_after_a_pass_in_the_same_flight_only(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"))
    number = submit(lab, spec("a"), spec("b"), spec("c", dom0_mem="999"))
    assert run_all(lab) == [P]
    assert (host_of(lab, "h1").setup_flight, host_of(lab, "h1").state) == (number, HostState.FREE)
    assert run_all(lab) == [P]
    assert [step.status for step in job_of(lab, number, "b").last.steps] == [  # type: ignore[union-attr]
        StepStatus.SKIPPED,
        StepStatus.PASS,
    ]
    assert run_all(lab) == [P]
    assert job_of(lab, number, "c").last.steps[0].status is StepStatus.PASS, "another set-up"  # type: ignore[union-attr]
    assert messages(lab).cleans == ["h1"], "the flight is over"
    clean_all(lab)
    other = submit(lab, spec("d"))
    assert run_all(lab) == [P]
    assert job_of(lab, other, "d").last.steps[0].status is StepStatus.PASS, "another flight"  # type: ignore[union-attr]


@pytest.mark.parametrize("how", [fails, breaks])
def test_a_host_is_never_reused_after_anything_but_a_pass(
    new_lab: Callable[..., Lab], how: Callable[[StepContext], None]
) -> None:
    lab = new_lab(a_host("h1"), retries=0)
    number = submit(lab, spec("a", doing(how)), spec("b"))
    run_all(lab)
    host = host_of(lab, "h1")
    assert (host.state, host.setup_key) == (HostState.CLEANING, None)
    assert messages(lab).cleans == ["h1"]
    assert start(lab) == []
    clean_all(lab)
    assert lab.machines["h1"].power.on is False  # type: ignore[index]
    assert run_all(lab) == [P]
    assert job_of(lab, number, "b").last.steps[0].status is StepStatus.PASS  # type: ignore[union-attr]


# --- retries


def test_a_broken_job_is_tried_again_elsewhere_until_its_retries_are_used_up(lab: Lab) -> None:
    number = submit(lab, spec("a", doing(breaks)))
    for tries in (1, 2):
        assert run_all(lab) == [JobStatus.BROKEN]
        job = job_of(lab, number, "a")
        assert (job.status, len(job.attempts)) == (JobStatus.QUEUED, tries)
        assert job.reason.startswith(f"attempt {tries} was broken: work: the disk is full")
        clean_all(lab)
    assert run_all(lab) == [JobStatus.BROKEN]
    job = job_of(lab, number, "a")
    assert (job.status, job.reason) == (JobStatus.BROKEN, "work: the disk is full")
    assert [attempt.hosts["host"] for attempt in job.attempts][:2] == ["h1", "h2"]
    assert flight_of(lab, number).finished is not None


def test_a_failed_job_is_never_tried_again(lab: Lab) -> None:
    number = submit(lab, spec("a", doing(fails)))
    assert run_all(lab) == [JobStatus.FAIL]
    assert start(lab) == []
    flight = flight_of(lab, number)
    assert (flight.status, flight.blessing) == (JobStatus.FAIL, Blessing.PLAY)


# --- abort


def test_aborting_a_queued_flight_ends_it_at_once(lab: Lab) -> None:
    number = submit(lab, spec("a"), spec("b"))
    assert abort(lab, number)
    flight = flight_of(lab, number)
    assert (flight.status, flight.blessing) == (JobStatus.ABORTED, Blessing.BROKEN)
    assert flight.finished is not None
    assert {job.reason for job in flight.jobs} == {"enough"}
    assert start(lab) == []
    assert not abort(lab, number), "it had ended"


def test_aborting_an_unclaimed_job_gives_its_host_back_and_no_worker_takes_it(lab: Lab) -> None:
    number = submit(lab, spec("a"))
    ((attempt, token),) = start(lab)
    assert abort(lab, number)
    assert flight_of(lab, number).finished is not None
    assert messages(lab).cleans == ["h1"]
    assert run_job(lab, attempt, token) is None
    assert job_of(lab, number, "a").last.steps == ()  # type: ignore[union-attr]


def test_aborting_a_running_job_ends_its_step_keeps_its_logs_and_cleans_its_host(lab: Lab) -> None:
    seen: list[str] = []
    begun = threading.Event()

    def waits(ctx: StepContext) -> None:
        begun.set()
        ctx.wait(60)

    def keeps(ctx: StepContext) -> None:
        seen.append("logs")

    recipe = a_recipe(boot, run(a_step(waits), "wait"), run(BOOT, "never"), run(a_step(keeps), "keep", always=True))
    number = submit(lab, spec("a", recipe))
    ((attempt, token),) = start(lab)
    worker = threading.Thread(target=run_job, args=(lab, attempt, token))
    worker.start()
    assert begun.wait(10)
    assert abort(lab, number)
    assert flight_of(lab, number).finished is None, "its host is still in use"
    worker.join(10)
    assert not worker.is_alive()
    job = job_of(lab, number, "a")
    assert (job.status, job.reason, job.last.status) == (JobStatus.ABORTED, "enough", JobStatus.ABORTED)  # type: ignore[union-attr]
    assert [(step.testid, step.status) for step in job.last.steps] == [  # type: ignore[union-attr]
        ("boot", StepStatus.PASS),
        ("wait", StepStatus.ABORTED),
        ("keep", StepStatus.PASS),
    ]
    assert seen == ["logs"]
    assert flight_of(lab, number).blessing is Blessing.BROKEN
    assert host_of(lab, "h1").state is HostState.CLEANING


def test_aborting_a_flight_that_is_not_there_is_told(lab: Lab) -> None:
    with pytest.raises(NotFoundError):
        abort(lab, 4711)


# --- reap


def claim(lab: Lab, attempts: Iterable[tuple[int, str]]) -> None:
    """A worker takes these up, and is never heard of again."""
    with lab.sessions.begin() as session:
        for attempt, token in attempts:
            assert flights.claim_attempt(session, attempt, token, worker="w", until=lab.clock())


def answered(lab: Lab, site: str) -> None:
    with lab.sessions.begin() as session:
        note_answer(session, lab, site)
    clean_all(lab)


def test_a_job_that_nobody_took_is_tried_again_however_often(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(retries=0)
    number = submit(lab, spec("a"))
    for tries in range(1, 5):
        start(lab)
        assert reaped(lab) == 1
        job = job_of(lab, number, "a")
        assert (job.status, len(job.attempts)) == (JobStatus.QUEUED, tries)
        answered(lab, "default")
    claim(lab, start(lab))
    assert reaped(lab) == 1
    assert job_of(lab, number, "a").status is JobStatus.BROKEN, "that one counts"


def test_a_job_no_worker_took_goes_back_to_the_queue(lab: Lab) -> None:
    number = submit(lab, spec("a"))
    start(lab)
    assert reaped(lab, 30) == 0
    assert reaped(lab) == 1
    job = job_of(lab, number, "a")
    assert (job.status, job.last.status, job.last.reason) == (JobStatus.QUEUED, JobStatus.BROKEN, "no worker took it")  # type: ignore[union-attr]
    assert messages(lab).cleans == ["h1"]


def test_a_job_that_lost_its_worker_too_often_is_broken(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(retries=0)
    number = submit(lab, spec("a"), spec("b"))
    claim(lab, start(lab))
    assert reaped(lab) == 2
    assert flight_of(lab, number).status is JobStatus.BROKEN
    assert flight_of(lab, number).finished is not None


def test_what_a_fenced_off_worker_does_late_changes_nothing(lab: Lab) -> None:
    begun, go_on = threading.Event(), threading.Event()
    touched: list[str] = []

    def stuck(ctx: StepContext) -> None:
        if begun.is_set():
            return  # the second attempt
        begun.set()
        go_on.wait(20)
        ctx.runvars.set("late", "value")
        raise StepFailure("late")

    def keeps(ctx: StepContext) -> None:
        touched.append(ctx.host().name)

    recipe = a_recipe(boot, run(a_step(stuck), "stuck"), run(a_step(keeps), "keep", always=True))
    number = submit(lab, spec("a", recipe))
    ((attempt, token),) = start(lab)
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(run_job(lab, attempt, token)))
    worker.start()
    assert begun.wait(10)
    assert reaped(lab) == 1
    job = job_of(lab, number, "a")
    assert (job.status, job.last.status) == (JobStatus.QUEUED, JobStatus.BROKEN)  # type: ignore[union-attr]
    assert "fell silent" in job.last.reason  # type: ignore[union-attr]
    assert [step.status for step in job.last.steps] == [StepStatus.PASS, StepStatus.BROKEN]  # type: ignore[union-attr]
    clean_all(lab)
    assert run_all(lab) == [P]
    before = (flight_of(lab, number), host_of(lab, "h1"), host_of(lab, "h2"))
    assert touched == ["h2"]
    go_on.set()
    worker.join(10)
    assert results == [None]
    assert (flight_of(lab, number), host_of(lab, "h1"), host_of(lab, "h2")) == before
    assert touched == ["h2"], "not even its logs are taken from a host that is another's"


# --- clean


def test_a_host_that_refuses_to_go_off_is_quarantined_with_the_reason(lab: Lab) -> None:
    submit(lab, spec("a", doing(fails)))
    run_all(lab)
    lab.machines["h1"].power.refuses = InfraError("the PDU says no")  # type: ignore[index]
    clean_host(lab, "h1")
    host = host_of(lab, "h1")
    assert (host.state, host.health) == (HostState.FREE, Health.QUARANTINED)
    assert host.health_reason == "could not be powered off: the PDU says no"
    with lab.reads() as session:
        assert hosts.health_history(session, "h1")[0].actor == "lab"
    submit(lab, spec("b"))
    run_all(lab)
    assert host_of(lab, "h1").state is HostState.FREE, "nobody gets it"


def test_cleaning_a_host_that_is_not_to_be_cleaned_does_not_touch_it(lab: Lab) -> None:
    submit(lab, spec("a"))
    start(lab)
    lab.machines["h1"].power.on = True  # type: ignore[index]
    for name in ("h1", "h2", "nosuch"):
        clean_host(lab, name)
    assert lab.machines["h1"].power.on  # type: ignore[index]
    assert host_of(lab, "h1").state is HostState.LEASED


def test_a_host_that_left_the_file_does_not_stay_in_cleaning(lab: Lab) -> None:
    submit(lab, spec("a", doing(fails)))
    run_all(lab)
    del lab.machines.hosts["h1"]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError):
        lab.machines.open("h1")
    clean_host(lab, "h1")
    assert host_of(lab, "h1").health is Health.QUARANTINED


def test_a_late_cleaner_never_switches_off_the_next_jobs_machine(lab: Lab) -> None:
    submit(lab, spec("a", doing(fails)))
    run_all(lab)
    power = lab.machines["h1"].power  # type: ignore[index]
    begun, go_on = threading.Event(), threading.Event()
    switched = power.set

    def slow(on: bool) -> None:
        begun.set()
        go_on.wait(10)
        switched(on)

    power.set = slow
    first = threading.Thread(target=clean_host, args=(lab, "h1"))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=clean_host, args=(lab, "h1"))  # the message was sent twice
    second.start()
    second.join(5)
    assert not second.is_alive(), "one cleaner is enough"
    assert power.switched == [True]
    go_on.set()
    first.join(10)
    assert power.switched == [True, False]
    assert host_of(lab, "h1").state is HostState.FREE


# --- close


def test_a_flight_is_closed_only_when_every_job_has_ended_and_no_host_is_held(lab: Lab) -> None:
    number = submit(lab, spec("a"), spec("b", doing(fails)), intended=Blessing.REAL)
    ((one, token), (two, other)) = start(lab)
    run_job(lab, one, token)
    flight = flight_of(lab, number)
    assert (flight.finished, flight.blessing, flight.status) == (None, Blessing.RUNNING, R)
    assert host_of(lab, "h1").state is HostState.FREE
    run_job(lab, two, other)
    flight = flight_of(lab, number)
    assert flight.finished is not None
    assert (flight.blessing, flight.status) == (Blessing.REAL, JobStatus.FAIL)
    assert sorted(messages(lab).cleans) == ["h1", "h2"]
    with lab.sessions.begin() as session:
        close_if_done(session, lab, number)
    assert flight_of(lab, number) == flight


def test_every_recipe_may_consist_of_set_up_alone(lab: Lab) -> None:
    number = submit(lab, spec("a", a_recipe(boot)))
    assert run_all(lab) == [P]
    assert flight_of(lab, number).status is P
    assert PASSES


def test_a_job_that_failed_is_tried_where_it_failed(lab: Lab) -> None:
    recipe = doing(_fails)
    submit(lab, spec("a", recipe, all_hostflags='name == "h2"'))
    run_all(lab)
    clean_all(lab)
    again, other = submit(lab, spec("a", recipe)), submit(lab, spec("b", recipe))
    run_all(lab)
    assert job_of(lab, again, "a").last.hosts == {"host": "h2"}  # type: ignore[union-attr]
    assert job_of(lab, other, "b").last.hosts == {"host": "h1"}  # type: ignore[union-attr]


def _fails(_ctx: StepContext) -> None:
    raise StepFailure("no")
