"""Regressions from the first failure to the proof that it is mended, through gates, bisections and people."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from bisection_lab import JOB, PRODUCT, TESTID, fly
from click.testing import CliRunner
from factories import later
from gate_lab import NAME, World

from lab.context import Lab
from lab.db import regressions
from lab.db.judging import Versions
from lab.errors import ConfigError
from lab.flights.regression_life import Life, Regression
from lab.flights.signature import signature
from lab.flights.verdict import verdict_of
from lab.services.bisect import stop_bisection
from lab.services.regression_life import add_known_issue, record_verdict, tell_regression
from lab.services.show_board import show_board

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def of(lab: Lab) -> list[Regression]:
    with lab.reads() as session:
        return regressions.of_branch(session, NAME)


def test_a_life(make_world: Callable[..., World]) -> None:
    world = make_world(bisect=True)
    commits = world.commits
    world.run()
    assert of(world.lab) == []
    PRODUCT.bad |= {commits[3]}
    world.tip(commits[3])
    held = world.run()
    (one,) = of(world.lab)
    assert (one.job, one.testid, one.first_flight) == (JOB, TESTID, held.flight)
    assert (one.life, one.bisection, one.sample) == (Life.BISECTING, 1, "the guest lost 4 pages")
    assert one.signature == signature("the guest lost 17 pages")

    for _ in range(40):  # the bisection runs to its end beside nothing else
        from bisection_lab import work

        from lab.services.bisect_step import step_bisections

        step_bisections(world.lab)
        work(world.lab)
        if of(world.lab)[0].life is Life.BLAMED:
            break
    (one,) = of(world.lab)
    assert (one.life, one.culprit) == (Life.BLAMED, commits[3])

    world.run()  # it fails again: nothing new
    assert of(world.lab)[0].life is Life.BLAMED
    world.tip(commits[4])
    fixed = world.run()
    assert fixed.pushed
    assert of(world.lab)[0].life is Life.FIXED
    with world.lab.reads() as session:
        told = tell_regression(session, world.lab, one.id)
    assert [event.new for event in told.events] == ["new", "bisecting", "blamed", "fixed"]
    assert told.events[0].reason.startswith("REGR. vs.")
    assert told.events[-1].flight == fixed.flight
    assert told.first_seen is not None
    assert told.first_seen.flight == held.flight
    assert told.first_seen.count >= 2

    PRODUCT.bad |= {commits[5]}
    world.tip(commits[5])
    again = world.run()
    (one,) = of(world.lab)  # the same message of the same test: the same regression
    assert one.life in (Life.CONFIRMED, Life.BISECTING)
    with world.lab.reads() as session:
        events = regressions.events_of(session, one.id)
    assert any(event.reason.startswith(f"it came back in flight {again.flight}") for event in events)


@ONE
def test_it_is_verified_by_passes_and_a_stopped_search_leaves_it_confirmed(make_world: Callable[..., World]) -> None:
    world = make_world(bisect=True, always=True)
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    world.run()
    with world.lab.sessions.begin() as session:
        assert stop_bisection(session, world.lab, 1, reason="enough")
    assert of(world.lab)[0].life is Life.CONFIRMED
    world.tip(world.commits[4])
    lives = []
    for _ in range(4):
        world.run()
        lives.append(of(world.lab)[0].life.value)
    assert lives == ["fixed", "fixed", "verified", "verified"]


@ONE
def test_a_retest_confirms_at_once_and_recording_twice_changes_nothing(make_world: Callable[..., World]) -> None:
    world = make_world(retest=1)
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    held = world.run()
    (one,) = of(world.lab)
    assert one.life is Life.CONFIRMED
    versions = Versions(this={"xen": held.new}, that={"xen": held.old})
    with world.lab.sessions.begin() as session:
        assert record_verdict(session, world.lab, NAME, versions, verdict_of(held.verdict)) == []
    assert of(world.lab) == [one]


@ONE
def test_owners_and_known_issues_are_shown_on_the_board_and_expire(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    world.run()

    def owner(lab: Lab) -> str:
        with lab.reads() as session:
            return show_board(session, lab, {NAME: "xen"})[0].blockers[0].owner

    assert owner(world.lab) == ""
    with world.lab.sessions.begin() as session:
        add_known_issue(
            session, world.lab, job="test-*", testid="*", text="lost 9 pages", owner="bob@example.org",
            reason="being looked at", url="https://example.org/1", actor="ian",
            expires=world.lab.clock() + timedelta(hours=1),
        )  # fmt: skip
    assert owner(world.lab) == "bob@example.org"
    assert owner(later(world.lab, 7200)) == ""  # it has expired: nobody's again
    with world.lab.sessions.begin() as session:
        regressions.set_owner(session, 1, "ann", actor="ian", reason="she knows", now=world.lab.clock())
    assert owner(world.lab) == "ann"
    held = world.run()
    assert not held.pushed  # whose it is opens no gate
    for bad in (
        {"owner": "a\nb"},
        {"owner": ""},
        {"reason": " "},
        {"url": "javascript:alert(1)"},
        {"text": "a\x00"},
        {"expires": world.lab.clock()},
    ):
        with world.lab.sessions.begin() as session, pytest.raises(ConfigError):
            add_known_issue(
                session, world.lab,
                **{"job": "a", "testid": "b", "text": "", "owner": "ann", "reason": "r", "url": "", "actor": "ian",
                   "expires": world.lab.clock() + timedelta(1), **bad},  # type: ignore[arg-type]
            )  # fmt: skip


@ONE
def test_a_message_is_known_from_any_flight(make_world: Callable[..., World]) -> None:
    world = make_world()
    PRODUCT.bad |= {world.commits[3]}
    first = fly(world.lab, world.commits[3])
    fly(world.lab, world.commits[3])
    with world.lab.reads() as session:
        seen = regressions.first_seen(session, signature("the guest lost 4 pages"))
        assert regressions.first_seen(session, "0" * 16) is None
    assert seen is not None
    assert (seen.flight, seen.job, seen.count, seen.last_flight) == (first, JOB, 2, first + 1)


@ONE
def test_the_same_failure_on_another_host_is_the_same(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    world.run()
    monkeypatch.setattr(PRODUCT, "says", "{host}: the guest lost 4 pages")
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    world.run()
    (one,) = of(world.lab)
    assert not one.sample.startswith("the guest")
    assert one.signature == signature("<host>: the guest lost 4 pages")
    with world.lab.reads() as session:
        assert tell_regression(session, world.lab, one.id).first_seen is not None


@ONE
def test_the_commands(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.cli import main, regression, render

    world = make_world()
    world.run()
    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    world.run()
    monkeypatch.setattr(regression, "open_lab", lambda *_: world.lab)

    def call(*words: str) -> tuple[int, str]:
        for console in (render.output, render.errors):
            console.cache_clear()
        done = CliRunner().invoke(main, list(words), env={"COLUMNS": "200"})
        return done.exit_code, done.output

    (listed,) = json.loads(call("regression", "list", "--json")[1])
    assert (listed["state"], listed["message"]) == ("new", "the guest lost 4 pages")
    assert call("regression", "own", "1", "ann")[0] == 0
    assert "this message first appeared in flight" in call("regression", "show", "1")[1]
    assert json.loads(call("regression", "show", "1", "--json")[1])["owner"] == "ann"
    assert call("regression", "show", "9")[0] == 2
    assert call("regression", "own", "1", "a\nb")[0] == 2
    assert call("known-issue", "add", "test-*", "--owner", "ann", "--reason", "known", "--for", "2d")[0] == 0
    assert json.loads(call("known-issue", "list", "--json")[1])[0]["in_force"] is True
    assert call("known-issue", "end", "1")[0] == 0
    assert call("known-issue", "end", "1")[0] == 2
    assert "Nothing is known" in call("known-issue", "list")[1]
