"""The health of hosts: quarantined by what ended on them, tried again, and back by themselves; with evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from factories import (
    FakeMachines,
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
from lab.errors import Blocked, ConfigError, InfraError, LabError, PowerError
from lab.flights import checks
from lab.flights.model import JobSpec
from lab.flights.status import JobStatus
from lab.flights.steps import StepContext
from lab.hosts.hardware import console_faults
from lab.hosts.health import Rules
from lab.hosts.model import Health, HostState
from lab.services.clean_host import clean_host
from lab.services.host_health import drain_host, quarantine_host, return_host
from lab.services.judge_host import note_hardware
from lab.services.run_job import run_job
from lab.services.settle import abort_flight
from lab.services.tend_hosts import tend_hosts

BAD: set[str] = set()
"""Hosts on which jobs break."""


def _needs_a_good_host(ctx: StepContext) -> None:
    if ctx.host().name in BAD:
        raise InfraError(f"{ctx.host().name}: its disk is gone")


@pytest.fixture
def work() -> str:
    """A recipe that breaks on the hosts in `BAD`."""
    return doing(_needs_a_good_host)


@pytest.fixture(autouse=True)
def _all_good() -> None:
    BAD.clear()


@pytest.fixture
def lab(new_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> Lab:
    def specs(host: str, arch: str, count: int, *, burn_in: bool) -> tuple[JobSpec, ...]:
        need = f'name == "{host}"' + (" and burn_in" if burn_in else "")
        return tuple(
            JobSpec(name=f"check-{n}", recipe=checks.RECIPE, runvars={"all_hostflags": need, "check_host": host})
            for n in range(count)
        )

    monkeypatch.setattr("lab.services.tend_hosts.check_specs", specs)
    return replace(new_lab(retries=5), health_rules=Rules(burn_in_after_s=600, burn_in_checks=2))


def health(lab: Lab, name: str) -> tuple[Health, str]:
    host = host_of(lab, name)
    return host.health, host.health_reason


def history(lab: Lab, name: str) -> list[tuple[str, str, str]]:
    with lab.reads() as session:
        return [(one.old.value, one.new.value, one.actor) for one in reversed(hosts.health_history(session, name))]


def clean(lab: Lab) -> None:
    with lab.reads() as session:
        dirty = hosts.cleaning_hosts(session)
    for name in dirty:
        clean_host(lab, name)


def run_until_done(lab: Lab, flight: int) -> None:
    for _ in range(20):
        run_all(lab)
        clean(lab)
        if all(job.status.final for job in flight_of(lab, flight).jobs):
            return
    raise AssertionError("the flight does not end")


def test_a_host_on_which_two_jobs_in_a_row_break_that_work_elsewhere_is_quarantined(lab: Lab, work: str) -> None:
    BAD.add("h1")
    run_until_done(lab, submit(lab, spec("one", work)))  # h1 breaks, h2 does it
    assert health(lab, "h1")[0] is Health.SUSPECT
    run_until_done(lab, submit(lab, spec("two", work, all_hostflags='name == "h2"')))
    submit(lab, spec("two", work))
    with lab.sessions.begin() as session:  # a suspect is taken only if need be
        hosts.set_health(session, "h2", Health.MAINTENANCE, reason="to force it", actor="me", now=lab.clock())
    run_all(lab)
    state, reason = health(lab, "h1")
    assert state is Health.QUARANTINED
    assert "2 attempts in a row broke on it, at jobs that work elsewhere" in reason
    assert history(lab, "h1") == [("good", "suspect", "lab"), ("suspect", "quarantined", "lab")]
    with lab.reads() as session:
        newest = hosts.health_history(session, "h1")[0]
    assert len(newest.evidence["attempts"]) == 2  # type: ignore[arg-type]
    assert host_of(lab, "h2").health is Health.MAINTENANCE


def test_what_breaks_everywhere_or_fails_blames_no_host(lab: Lab) -> None:
    def wrong(_ctx: StepContext) -> None:
        raise InfraError("the lab has a bug")

    def bug(_ctx: StepContext) -> None:
        raise ZeroDivisionError

    run_until_done(lab, submit(lab, spec("everywhere", doing(wrong)), spec("bug", doing(bug))))
    assert {health(lab, name)[0] for name in ("h1", "h2")} == {Health.GOOD}


def test_a_worker_that_falls_silent_blames_no_host(lab: Lab, work: str) -> None:
    from lab.services.settle import reap

    submit(lab, spec("one", work))
    start(lab)
    with later(lab, 1000).sessions.begin() as session:
        assert reap(session, later(lab, 1000)) == 1
    assert {health(lab, name)[0] for name in ("h1", "h2")} == {Health.GOOD}


def test_a_suspect_on_which_something_runs_is_good_again(lab: Lab, work: str) -> None:
    BAD.add("h1")
    run_until_done(lab, submit(lab, spec("one", work)))
    assert health(lab, "h1")[0] is Health.SUSPECT
    BAD.clear()
    run_until_done(lab, submit(lab, spec("three", work, all_hostflags='name == "h1"')))
    assert health(lab, "h1")[0] is Health.GOOD


def test_a_power_command_that_fails_quarantines(lab: Lab, work: str) -> None:
    machines = lab.machines
    assert isinstance(machines, FakeMachines)
    submit(lab, spec("one", work))
    run_all(lab)
    machines["h1"].power.refuses = InfraError("no answer")
    clean(lab)
    assert health(lab, "h1") == (Health.QUARANTINED, "could not be powered off: no answer")


def test_a_power_command_that_fails_in_a_job_quarantines_at_once(lab: Lab) -> None:
    def off_and_on(ctx: StepContext) -> None:
        if ctx.host().name == "h1":
            raise PowerError("the machine does not go on")

    flight = submit(lab, spec("one", doing(off_and_on)))
    run_until_done(lab, flight)
    assert job_of(lab, flight, "one").status is JobStatus.PASS, "tried again elsewhere"
    assert health(lab, "h1") == (Health.QUARANTINED, "the machine does not go on")
    with lab.reads() as session:
        assert hosts.health_history(session, "h1")[0].evidence["jobs"] == [f"{flight}.one"]


@pytest.mark.parametrize("deed", [drain_host, quarantine_host])
def test_power_that_fails_does_not_bring_back_what_people_have_in_hand(lab: Lab, work: str, deed: Any) -> None:
    machines = lab.machines
    assert isinstance(machines, FakeMachines)
    submit(lab, spec("one", work))
    run_all(lab)
    machines["h1"].power.refuses = InfraError("its plug is out")
    with lab.sessions.begin() as session:
        deed(session, lab, "h1", why="a new disk", actor="ann")
    before = health(lab, "h1")
    clean(lab)
    assert health(lab, "h1") == before
    _tend(later(lab, 1e6))
    assert health(lab, "h1") == before, "no burn-in of a host that is in pieces"


def test_a_drained_host_is_powered_off_when_its_job_has_passed(lab: Lab, work: str) -> None:
    submit(lab, spec("one", work), spec("later", work, all_hostflags='name == "h2"'))
    [(attempt, token), *_rest] = start(lab)
    with lab.sessions.begin() as session:
        drain_host(session, lab, "h1", why="a new disk", actor="ann")
    run_job(lab, attempt, token)
    assert host_of(lab, "h1").state is HostState.CLEANING, "its flight goes on, but not here"
    clean(lab)
    assert host_of(lab, "h1").state is HostState.FREE


def test_only_what_works_elsewhere_makes_an_outlier(new_lab: Callable[..., Lab], work: str) -> None:
    """Jobs that are wrong, and can run on h1 alone, say nothing of it, however many they are."""

    def wrong(_ctx: StepContext) -> None:
        raise InfraError("the lab has a bug")

    mistaken = doing(wrong)
    rules = Rules(outlier_least=3, outlier_p=0.05, in_a_row=100)
    lab = replace(new_lab(retries=0), health_rules=rules)
    names = [f"j{number}" for number in range(6)]
    run_until_done(lab, submit(lab, *(spec(name, work, all_hostflags='name == "h2"') for name in names)))
    run_until_done(lab, submit(lab, *(spec(f"odd-{name}", mistaken, all_hostflags='name == "h1"') for name in names)))
    assert health(lab, "h1")[0] is Health.GOOD
    BAD.add("h1")
    run_until_done(lab, submit(lab, *(spec(name, work, all_hostflags='name == "h1"') for name in names[:2])))
    assert health(lab, "h1")[0] is Health.SUSPECT, "two are too few"
    run_until_done(lab, submit(lab, spec(names[2], work, all_hostflags='name == "h1"')))
    assert health(lab, "h1")[0] is Health.QUARANTINED
    assert "3 of 3 jobs broke on it that work elsewhere, 0 of 6 on its equals" in health(lab, "h1")[1]


def _quarantined(lab: Lab, work: str) -> None:
    machines = lab.machines
    assert isinstance(machines, FakeMachines)
    submit(lab, spec("one", work))
    run_all(lab)
    machines["h1"].power.refuses = InfraError("no answer")
    clean(lab)
    machines["h1"].power.refuses = None


def _tend(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        tend_hosts(session, lab)


@pytest.fixture
def check_recipe(monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    """Checks that do what `work` does."""
    from lab.flights.recipe import _RECIPES

    monkeypatch.setitem(_RECIPES, checks.RECIPE, replace(_RECIPES[work], name=checks.RECIPE))


@pytest.mark.usefixtures("check_recipe")
def test_what_the_lab_has_quarantined_is_tried_and_comes_back_by_itself(lab: Lab, work: str) -> None:
    _quarantined(lab, work)
    _tend(lab)
    assert health(lab, "h1")[0] is Health.QUARANTINED, "it rests first"
    lab = later(lab, 700)
    _tend(lab)
    assert health(lab, "h1")[0] is Health.BURN_IN
    other = submit(lab, spec("other", work), spec("another", work))
    for _ in range(6):
        run_all(lab)
        clean(lab)
    assert health(lab, "h1") == (Health.GOOD, "it passed 2 checks in a row")
    assert {job_of(lab, other, name).status for name in ("other", "another")} == {JobStatus.PASS}
    used = {job_of(lab, other, name).last.hosts["host"] for name in ("other", "another")}  # type: ignore[union-attr]
    assert "h1" not in used, "in burn-in it is for checks alone"
    assert history(lab, "h1") == [
        ("good", "quarantined", "lab"),
        ("quarantined", "burn-in", "lab"),
        ("burn-in", "good", "lab"),
    ]


@pytest.mark.usefixtures("check_recipe")
def test_a_burn_in_that_fails_ends_and_the_next_one_comes_later(lab: Lab, work: str) -> None:
    _quarantined(lab, work)
    BAD.add("h1")
    lab = later(lab, 700)
    _tend(lab)
    run_all(lab)
    clean(lab)
    assert health(lab, "h1")[0] is Health.QUARANTINED
    assert "its burn-in failed" in health(lab, "h1")[1]
    _tend(lab)
    assert all(job.status.final for job in flight_of(lab, 2).jobs), "checks that can never run do not wait"
    _tend(later(lab, 1400))
    assert health(lab, "h1")[0] is Health.QUARANTINED
    _tend(later(lab, 2000))
    assert health(lab, "h1")[0] is Health.BURN_IN


@pytest.mark.usefixtures("check_recipe")
def test_who_stood_idle_is_checked_on_a_schedule(lab: Lab) -> None:
    lab = replace(lab, health_rules=replace(lab.health_rules, check_every_s=3600))
    _tend(lab)
    _tend(lab)
    with lab.reads() as session:
        from lab.db import health as rows

        assert {host: len(flights) for host, flights in rows.open_checks(session).items()} == {"h1": 1, "h2": 1}
    for _ in range(2):
        run_all(lab)
        clean(lab)
    _tend(lab)
    assert start(lab) == []
    _tend(later(lab, 4000))
    assert len(start(lab)) == 2


@pytest.mark.usefixtures("check_recipe")
def test_who_was_used_or_whose_check_was_called_off_is_not_checked_yet(lab: Lab, work: str) -> None:
    lab = replace(lab, health_rules=replace(lab.health_rules, check_every_s=3600))
    run_until_done(lab, submit(lab, spec("one", work, all_hostflags='name == "h1"')))
    _tend(lab)
    assert checks_begun(lab) == 1
    with lab.sessions.begin() as session:
        abort_flight(session, lab, 2, reason="not now")
    _tend(lab)
    assert checks_begun(lab) == 1


def checks_begun(lab: Lab) -> int:
    with lab.reads() as session:
        return len(flights.list_flights(session, branch=checks.BRANCH))


@pytest.mark.parametrize("ends", [ConfigError("no image"), Blocked("no Xen"), InfraError("it is everywhere")])
def test_checks_that_say_nothing_of_their_host_are_not_repeated_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ends: LabError
) -> None:
    def end(_ctx: StepContext) -> None:
        raise ends

    from lab.flights.recipe import _RECIPES

    monkeypatch.setitem(_RECIPES, checks.RECIPE, replace(_RECIPES[doing(end)], name=checks.RECIPE))
    lab = replace(lab, health_rules=replace(lab.health_rules, check_every_s=3600))
    for _ in range(9):
        _tend(lab)
        run_all(lab)
        clean(lab)
    assert checks_begun(lab) == 2, "one of each host"
    _tend(later(lab, 4000))
    assert checks_begun(lab) == 4


@pytest.mark.usefixtures("check_recipe")
def test_a_burn_in_without_a_verdict_is_tried_again_but_not_at_once(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        quarantine_host(session, lab, "h1", why="smoke", actor="bob")
        return_host(session, lab, "h1", why="aired", actor="bob")
    _tend(lab)
    _tend(lab)
    with lab.sessions.begin() as session:
        abort_flight(session, lab, 1, reason="not now")
    _tend(lab)
    _tend(later(lab, 500))
    assert checks_begun(lab) == 1
    _tend(later(lab, 700))
    assert checks_begun(lab) == 2


@pytest.mark.usefixtures("check_recipe")
def test_checks_for_another_health_than_the_host_has_end(lab: Lab) -> None:
    lab = replace(lab, health_rules=replace(lab.health_rules, check_every_s=3600))
    _tend(lab)
    with lab.sessions.begin() as session:
        quarantine_host(session, lab, "h1", why="smoke", actor="bob")
        return_host(session, lab, "h1", why="aired", actor="bob")
    _tend(lab)
    assert checks_begun(lab) == 3, "the usual check can have it no more; those of its burn-in can"
    with lab.sessions.begin() as session:
        return_host(session, lab, "h1", why="", actor="bob", at_once=True)
    _tend(lab)
    newest = flight_of(lab, 3)
    assert {job.status for job in newest.jobs} == {JobStatus.ABORTED}
    assert health(lab, "h1")[0] is Health.GOOD


def test_people_quarantine_drain_and_return(lab: Lab, work: str) -> None:
    submit(lab, spec("one", work))
    [(attempt, token)] = start(lab)
    busy = next(name for name in ("h1", "h2") if host_of(lab, name).state is HostState.LEASED)
    with lab.sessions.begin() as session:
        drain_host(session, lab, busy, why="a new disk", actor="ann")
    assert run_job(lab, attempt, token) is JobStatus.PASS, "what runs goes on"
    assert health(lab, busy) == (Health.MAINTENANCE, "a new disk")
    submit(lab, spec("two", work, all_hostflags=f'name == "{busy}"'))
    assert start(lab) == []
    _tend(later(lab, 1e6))
    assert health(lab, busy)[0] is Health.MAINTENANCE, "nothing leaves maintenance by itself"
    with lab.sessions.begin() as session:
        return_host(session, lab, busy, why="", actor="ann", at_once=True)
    assert health(lab, busy)[0] is Health.GOOD
    with lab.sessions.begin() as session:
        quarantine_host(session, lab, busy, why="smells of smoke", actor="bob")
        assert health(lab, busy)[0] is Health.GOOD
    assert health(lab, busy) == (Health.QUARANTINED, "smells of smoke")
    _tend(later(lab, 1e6))
    assert health(lab, busy)[0] is Health.QUARANTINED, "what a person has decided, a person takes back"
    with lab.sessions.begin() as session:
        return_host(session, lab, busy, why="aired", actor="bob")
    assert health(lab, busy) == (Health.BURN_IN, "aired")


@pytest.mark.parametrize(
    ("deed", "arguments", "told"),
    [
        (quarantine_host, {"why": " "}, "reason"),
        (quarantine_host, {"why": "two\nlines"}, "reason"),
        (drain_host, {"why": ""}, "reason"),
        (return_host, {"why": ""}, "is good already"),
    ],
)
def test_bad_input_is_refused(lab: Lab, deed: Any, arguments: dict[str, Any], told: str) -> None:
    with lab.sessions.begin() as session, pytest.raises(ConfigError, match=told):
        deed(session, lab, "h1", actor="ann", **arguments)
    assert history(lab, "h1") == []


def test_there_is_no_such_host(lab: Lab) -> None:
    with lab.sessions.begin() as session, pytest.raises(Exception, match="there is no host"):
        quarantine_host(session, lab, "nobody", why="x", actor="ann")


def test_a_machine_check_on_the_console_quarantines_the_host(lab: Lab) -> None:
    """With the line and the job as evidence. The job itself goes on, and what was told once is not told again."""
    line = b"[   12.3] EDAC MC0: 1 UE memory read error on DIMM_A1"

    def breaks_a_dimm(ctx: StepContext) -> None:
        machines = lab.machines
        assert isinstance(machines, FakeMachines)
        machines[ctx.host().name].console.says(line + b"\r\n")
        ctx.guard()

    flight = submit(lab, spec("one", doing(breaks_a_dimm), all_hostflags='name == "h1"'))
    run_all(lab)
    (job,) = flight_of(lab, flight).jobs
    assert job.status is JobStatus.PASS, job.reason
    state, reason = health(lab, "h1")
    assert state is Health.QUARANTINED
    assert "EDAC MC0: 1 UE" in reason
    with lab.reads() as session:
        change = hosts.health_history(session, "h1")[0]
    assert change.evidence == {"hardware": [f"console: {line.decode()}"], "jobs": [f"{flight}.one"]}
    with lab.sessions.begin() as session:
        return_host(session, lab, "h1", why="a new DIMM", actor="ann", at_once=True)
    with lab.sessions.begin() as session:
        note_hardware(session, lab, "h1", console_faults(line + b"\n"))
    assert health(lab, "h1")[0] is Health.GOOD
    with lab.sessions.begin() as session:
        note_hardware(session, lab, "h1", console_faults(line.replace(b"12", b"99") + b"\n"))
    assert health(lab, "h1")[0] is Health.QUARANTINED
