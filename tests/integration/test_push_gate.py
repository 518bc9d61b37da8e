"""Push gates end to end: real bare git repositories, a real database, fake machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from bisection_lab import JOB, PRODUCT, TESTID, git, work
from factories import FakeBuilds, flight_of, later
from gate_lab import NAME, World

from lab.db import board, gates, judging
from lab.errors import ConfigError, NotFoundError, StepFailure
from lab.flights.board import GateRun
from lab.flights.gate import GateStep
from lab.flights.status import Blessing
from lab.services.gate import begin_due_gates, begin_gate, decide_again, explain_gate
from lab.services.gate_step import fail_run, step_gates
from lab.services.settle import abort_flight
from lab.vcs import MovedError, Trees

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Most of this has nothing to do with the database; what does, runs on both."""


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def test_what_is_good_is_let_through_what_is_not_is_held_and_what_is_mended_passes(world: World) -> None:
    good, bad, mended = world.commits[2], world.commits[3], world.commits[4]
    run = world.run()
    assert (run.state, run.decision, run.pushed, run.reason) == ("done", "advance", True, "Perfect :-)")
    assert (run.old, run.new, world.at()) == (world.commits[1], good, good)
    # the baseline had never been tested: a flight of it came first
    assert run.baseline_flight is not None
    assert run.flight is not None
    assert run.baseline_flight < run.flight
    assert flight_of(world.lab, run.baseline_flight).intended is Blessing.REAL
    with world.lab.reads() as session:
        assert judging.revisions_of(session, run.baseline_flight) == {"xen": world.commits[1]}
        assert judging.revisions_of(session, run.flight) == {"xen": good}

    PRODUCT.bad |= {bad}
    world.tip(bad)
    held = world.run()
    assert (held.decision, held.pushed, world.at()) == ("hold", False, good)
    # what was let through has been tested: no baseline flight is needed
    assert held.baseline_flight == run.flight
    assert world.notes(held) == [f"{TESTID} REGR. vs. {run.flight}"]
    assert held.reason == f"{JOB} {TESTID} REGR. vs. {run.flight}"

    world.tip(mended)
    passed = world.run()
    assert (passed.pushed, world.at(), passed.baseline_flight) == (True, mended, run.flight)


@ONE
def test_nothing_new_is_up_to_date(world: World) -> None:
    world.tip(world.commits[1])
    run = world.run()
    assert (run.state, run.decision, run.pushed, run.flight) == ("done", "advance", False, None)
    assert run.reason.startswith("up to date")


@ONE
def test_a_branch_that_always_runs_tests_what_was_let_through_again(make_world: Callable[..., World]) -> None:
    world = make_world(always=True)
    world.tip(world.commits[1])
    run = world.run()
    assert (run.decision, run.flight is not None, world.at()) == ("advance", True, world.commits[1])


@ONE
def test_a_regression_is_bisected(make_world: Callable[..., World]) -> None:
    world = make_world(bisect=True)
    PRODUCT.bad |= set(world.commits[3:])
    world.tip(world.commits[5])
    held = world.run()
    assert held.decision == "hold"
    with world.lab.reads() as session:
        (found,) = board.running_bisections(session, [NAME])[NAME]
    assert (found.job, found.testid, found.state) == (JOB, TESTID, "running")


@ONE
def test_a_build_that_fails_holds_and_its_tests_do_not_count_twice(world: World) -> None:
    world.run()
    assert isinstance(world.lab.builds, FakeBuilds)
    world.lab.builds.errors[world.commits[3]] = StepFailure("error: expected ';'")
    world.tip(world.commits[3])
    held = world.run()
    assert held.decision == "hold"
    assert [(one["job"], one["kind"]) for one in held.verdict["findings"]] == [
        ("build-amd64", "regression"), (JOB, "na"),
    ]  # fmt: skip


@ONE
@pytest.mark.parametrize(
    ("settings", "ruin", "message"),
    [
        ({}, lambda world: git(world.source.parent, "clone", "--quiet", "source", "gone"), ""),
        ({"url": "/nowhere/at/all"}, None, "there is no folder"),
        ({"ref": "no-such-branch"}, None, "git cannot fetch it"),
        ({"push_ref": "never-pushed"}, None, "nothing of xen-unstable was ever let through"),
    ],
)
def test_a_tree_or_a_ref_that_vanished_is_said_and_nothing_is_pushed(
    make_world: Callable[..., World], settings: dict[str, Any], ruin: Callable[[World], object] | None, message: str
) -> None:
    world = make_world(**settings)
    before = world.at()
    if ruin is not None:
        world.source.rename(world.source.parent / "elsewhere")
        message = "there is no folder"
    run = world.run()
    assert (run.state, run.decision, run.pushed, world.at()) == ("failed", "", False, before)
    assert message in run.reason


@ONE
def test_a_tip_that_does_not_contain_what_was_let_through_is_refused(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.tip(world.commits[0])
    run = world.run()
    assert (run.state, run.pushed, world.at()) == ("failed", False, world.commits[1])
    assert "not a fast-forward" in run.reason


@ONE
def test_a_branch_that_may_be_rewound_is(make_world: Callable[..., World]) -> None:
    world = make_world(rewinds=True)
    world.tip(world.commits[0])
    assert (world.run().pushed, world.at()) == (True, world.commits[0])


def test_somebody_else_moved_the_output_meanwhile(world: World) -> None:
    with world.lab.sessions.begin() as session:
        number = begin_gate(session, world.lab, NAME, actor="tester")
    for _ in range(10):
        step_gates(world.lab)
        if world.load(number).state == GateStep.TESTING.value:
            break
        work(world.lab)
    git(world.source, "push", "--quiet", str(world.output), f"{world.commits[5]}:refs/heads/master")
    run = world.finish(number)
    assert (run.state, run.pushed, world.at()) == ("failed", False, world.commits[5])
    assert "somebody else has moved" in run.reason
    assert "run the gate again" in run.reason


@ONE
def test_the_lease_is_what_refuses_a_race_between_the_look_and_the_push(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = Trees(world.lab.settings.home)
    trees.fetch_ref("xen", str(world.source), "staging", keep="x/tip")
    real = Trees.remote_ref
    looks: list[str] = []

    def look(self: Trees, source: str, ref: str) -> str | None:
        found = real(self, source, ref)
        if not looks:  # right after the first look somebody pushes
            git(world.source, "push", "--quiet", str(world.output), f"{world.commits[5]}:refs/heads/master")
        looks.append(ref)
        return found

    monkeypatch.setattr(Trees, "remote_ref", look)
    with pytest.raises(MovedError):
        trees.push("xen", world.commits[2], str(world.output), "master", expected=world.commits[1])
    assert world.at() == world.commits[5]


@ONE
def test_pushing_twice_is_pushing_once(world: World) -> None:
    trees = Trees(world.lab.settings.home)
    trees.fetch_ref("xen", str(world.source), "staging", keep="x/tip")
    for _ in range(2):
        trees.push("xen", world.commits[2], str(world.output), "master", expected=world.commits[1])
    assert world.at() == world.commits[2]
    for name in ("-f", "refs/heads/a..b", "a b", "refs/notes/x", "x:y", "--mirror", "refs/heads/x.lock"):
        with pytest.raises(ConfigError):
            trees.push("xen", world.commits[2], str(world.output), name, expected=world.commits[1])
    for url in ("ext::sh -c true", "-u", "fd::17"):
        with pytest.raises(ConfigError):
            trees.push("xen", world.commits[2], url, "master", expected=world.commits[1])


def test_it_goes_on_after_a_death_at_any_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transaction of the gate is lost once, and the process dies after every push before it is written down."""
    deaths = {"transaction": 0, "push": 0}
    real_move, real_push = gates.move_run, Trees.push
    died: set[tuple[str, str]] = set()

    def move(session: Any, run: GateRun, to: GateStep, **more: Any) -> bool:
        done = real_move(session, run, to, **more)
        if ("move", f"{run.state}-{to}") not in died:
            died.add(("move", f"{run.state}-{to}"))
            deaths["transaction"] += 1
            raise RuntimeError("killed before the commit")
        return done

    def push(self: Trees, *args: Any, **more: Any) -> None:
        real_push(self, *args, **more)
        if ("push", "") not in died:
            died.add(("push", ""))
            deaths["push"] += 1
            raise RuntimeError("killed after the push")

    monkeypatch.setattr(gates, "move_run", move)
    monkeypatch.setattr(Trees, "push", push)
    run = world.run()
    assert (run.pushed, run.decision, world.at()) == (True, "advance", world.commits[2])
    assert deaths == {"transaction": 4, "push": 1}
    with world.lab.reads() as session:
        flown = judging.flights_testing(session, NAME, {"xen": world.commits[2]})
    assert flown == [run.flight]  # nothing was flown twice


@ONE
def test_there_is_one_run_at_a_time(world: World) -> None:
    with world.lab.sessions.begin() as session:
        first = begin_gate(session, world.lab, NAME, actor="a")
        assert begin_gate(session, world.lab, NAME, actor="b") == first
    assert world.finish(first).pushed
    with world.lab.sessions.begin() as session, pytest.raises(NotFoundError, match="no branch"):
        begin_gate(session, world.lab, "nonsense", actor="a")


def test_of_two_who_begin_a_run_at_the_same_moment_one_does(world: World) -> None:
    """On PostgreSQL neither sees the other's row when it looks; the database has the last word."""
    together = Barrier(4)

    def begin(actor: str) -> int:
        together.wait()
        with world.lab.sessions.begin() as session:
            return begin_gate(session, world.lab, NAME, actor=actor)

    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            (number,) = set(pool.map(begin, "abcd"))
        with world.lab.reads() as session:
            assert gates.open_runs(session) == [number]
        fail_run(world.lab, number, "enough")


@ONE
def test_a_hold_has_the_last_word(world: World) -> None:
    hold = world.say("hold")
    run = world.run()
    assert (run.decision, run.pushed, run.reason) == ("hold", False, "held by ian: because")
    assert world.at() == world.commits[1]
    world.say("force", revision=world.commits[2])
    assert not world.run().pushed
    with world.lab.sessions.begin() as session:
        assert gates.end_override(session, hold, actor="ann", now=world.lab.clock()) == NAME
    with world.lab.sessions.begin() as session, pytest.raises(NotFoundError):
        gates.end_override(session, hold, actor="ann", now=world.lab.clock())
    assert world.run().pushed
    with world.lab.reads() as session:
        told = {one.number: one for one in board.list_overrides(session, NAME)}
    assert (told[hold].actor, told[hold].reason, told[hold].ended_by) == ("ian", "because", "ann")


def test_what_explain_names_opens_the_gate_without_testing_again(world: World) -> None:
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    held = world.run()
    with world.lab.reads() as session:
        run, told = explain_gate(session, world.lab, NAME)
    assert (run.id, told.besides, told.decision.word) == (held.id, (), "hold")
    assert [(one.job, one.testid) for one in told.waive] == [(JOB, TESTID)]
    # a waiver of another revision, or of another test, does not count
    world.say("waive", job=JOB, testid=TESTID, revision=world.commits[2])
    world.say("waive", job=JOB, testid="guest-start", revision=world.commits[3])

    def decided() -> GateRun:
        with world.lab.sessions.begin() as session:
            number = decide_again(session, world.lab, NAME, actor="ann")
        return world.finish(number, 3)

    assert decided().decision == "hold"
    (waiver,) = told.waive
    world.say("waive", job=waiver.job, testid=waiver.testid, revision=world.commits[3])
    opened = decided()
    assert (opened.decision, opened.pushed, opened.flight, world.at()) == (
        "advance", True, held.flight, world.commits[3],
    )  # fmt: skip
    assert [one["kind"] for one in opened.verdict["findings"]] == ["waived"]
    with world.lab.sessions.begin() as session, pytest.raises(ConfigError, match="nothing that the gate"):
        decide_again(session, world.lab, NAME, actor="ann")


@ONE
def test_a_waiver_expires(world: World) -> None:
    world.run()
    PRODUCT.bad |= set(world.commits[3:])
    world.tip(world.commits[3])
    held = world.run()
    world.say("waive", job=JOB, testid=TESTID, expires=world.lab.clock() + timedelta(hours=1))
    now, world.lab = world.lab, later(world.lab, 7200)  # it was in force for an hour

    def decided() -> GateRun:
        with world.lab.sessions.begin() as session:
            number = decide_again(session, world.lab, NAME, actor="ann")
        return world.finish(number, 3)

    assert decided().decision == "hold"
    world.lab = now
    opened = decided()
    assert (opened.pushed, opened.flight) == (True, held.flight)


@ONE
@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("hold", {"reason": " "}, "who and why"),
        ("hold", {"reason": "a\nb"}, "printable"),
        ("waive", {"job": JOB}, "one test of one job"),
        ("waive", {"job": JOB, "testid": TESTID}, "a waiver ends"),
        ("force", {}, "a revision is missing"),
        ("force", {"revision": "no-such-revision"}, "has no revision"),
        ("hold", {"expires": timedelta(days=-1)}, "within a year"),
        ("hold", {"expires": timedelta(days=800)}, "within a year"),
    ],
)
def test_what_a_person_says_must_be_whole(world: World, kind: str, more: dict[str, Any], message: str) -> None:
    if isinstance(more.get("expires"), timedelta):
        more = {**more, "expires": world.lab.clock() + more["expires"]}
    with pytest.raises((ConfigError, NotFoundError), match=message):
        world.say(kind, **more)
    with world.lab.reads() as session:
        assert board.list_overrides(session, NAME) == []


@ONE
def test_a_forced_revision_passes_whatever_came_out(world: World) -> None:
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    assert not world.run().pushed
    world.say("force", revision=world.commits[3], reason="the test is wrong")
    run = world.run()
    assert (run.pushed, run.reason, world.at()) == (True, "forced by ian: the test is wrong", world.commits[3])
    assert world.notes(run)  # what failed is still told


@ONE
def test_too_little_coverage_holds(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.lab = replace(world.lab, coverage={NAME: {"arm64": 0.5}})
    run = world.run()
    assert (run.decision, run.pushed) == ("hold", False)
    assert "arm64: 0 of 0 jobs" in run.reason
    with world.lab.reads() as session:
        _, told = explain_gate(session, world.lab, NAME)
    assert told.waive == ()
    assert "arm64" in told.besides[0]


@ONE
def test_an_aborted_flight_decides_nothing(world: World) -> None:
    with world.lab.sessions.begin() as session:
        number = begin_gate(session, world.lab, NAME, actor="tester")
    step_gates(world.lab)
    baseline = world.load(number).baseline_flight
    with world.lab.sessions.begin() as session:
        abort_flight(session, world.lab, baseline or 0, reason="stopped")
    run = world.finish(number)
    assert (run.state, run.pushed) == ("failed", False)
    assert "was it aborted?" in run.reason


@ONE
def test_the_schedule_begins_a_run_when_it_is_time(make_world: Callable[..., World]) -> None:
    world = make_world(schedule="0 4 * * *")

    def due(day: int, hour: int, minute: int = 0) -> bool:
        lab = replace(world.lab, clock=lambda: datetime(2030, 1, day, hour, minute, tzinfo=UTC))
        return bool(begin_due_gates(lab))

    assert not due(1, 3, 59)
    assert due(1, 4)
    assert not due(1, 4, 1)  # one is under way
    with world.lab.reads() as session:
        (under_way,) = gates.open_runs(session, NAME)
    assert world.finish(under_way).pushed
    assert not due(1, 5)
    assert not due(2, 3, 59)
    assert due(3, 9)  # the lab was down at 4: made up for, once


def retested(make_world: Callable[..., World], results: list[bool], **settings: Any) -> tuple[World, GateRun]:
    """A tip whose test fails or passes in this order, the flight itself first."""
    world = make_world(**settings)
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    outcomes = iter(results)
    PRODUCT.lucky = lambda: next(outcomes)
    world.tip(world.commits[3])
    return world, world.run()


def test_a_suspicious_failure_is_tried_again_on_the_same_host_and_on_another(make_world: Callable[..., World]) -> None:
    world, run = retested(make_world, [False, True, True], retest=2, retest_passes=2)
    assert run.pushed
    first, second = run.verdict["retests"]
    (finding,) = run.verdict["findings"]
    assert (finding["kind"], finding["note"], finding["blocks"]) == ("heisenbug", f"pass in {second}", False)
    for number in (run.flight, first, second):  # all runs are told
        assert any(f"in {number}" in reason for reason in finding["reasons"]), finding["reasons"]
    hosts = {
        number: next(job for job in flight_of(world.lab, number).jobs if job.name == JOB).last.hosts["host"]  # type: ignore[union-attr]
        for number in (run.flight, first, second)
        if number
    }
    assert hosts[first] == hosts[run.flight or 0]
    assert hosts[second] != hosts[run.flight or 0]
    for number in (first, second):
        flight = flight_of(world.lab, number)
        assert flight.intended is Blessing.REAL_RETEST
        assert [job.name for job in flight.jobs] == [JOB]  # the build is the flight's own
        with world.lab.reads() as session:
            assert judging.revisions_of(session, number) == {"xen": world.commits[3]}


@ONE
def test_too_few_passes_do_not_excuse(make_world: Callable[..., World]) -> None:
    _, run = retested(make_world, [False, True, False], retest=2, retest_passes=2)
    assert (run.decision, run.pushed) == ("hold", False)
    (finding,) = run.verdict["findings"]
    assert finding["note"].startswith("REGR. vs.")
    assert any("2 passes would excuse it" in reason for reason in finding["reasons"])


@ONE
def test_what_always_fails_stays_a_regression(make_world: Callable[..., World]) -> None:
    _, run = retested(make_world, [False, False, False, False], retest=3)
    assert (run.decision, len(run.verdict["retests"])) == ("hold", 3)


@ONE
def test_without_retests_one_failure_holds(make_world: Callable[..., World]) -> None:
    _, run = retested(make_world, [False])
    assert (run.decision, run.verdict["retests"]) == ("hold", [])


@ONE
def test_evidence_asks_for_more_than_one_pass(make_world: Callable[..., World]) -> None:
    rules: Mapping[str, Any] = {"policy": "evidence"}
    _, run = retested(make_world, [False, True], retest=1, rules=rules)
    assert run.decision == "hold"
    (finding,) = run.verdict["findings"]
    assert "further passes of this revision" in finding["reasons"][-1]
