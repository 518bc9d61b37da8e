"""Bisections from flights to verdict: real git, a real database, fake machines."""

from __future__ import annotations

import threading
from itertools import cycle
from pathlib import Path

import pytest
from bisection_lab import (
    JOB,
    PRODUCT,
    TESTID,
    a_tree,
    bisection_of,
    does_not_compile,
    fly,
    git,
    specs,
    to_the_end,
    work,
)
from factories import FakeBuilds, a_host, flight_of, host_of, leading, run_all, spec, submit

import testcases
from lab.context import Lab
from lab.db import bisections
from lab.errors import ConfigError
from lab.flights import recipes
from lab.flights.bisection import Policy
from lab.flights.bisection_runs import BisectionState, Hosts, Result
from lab.flights.builds import RECIPE
from lab.flights.status import Blessing, JobStatus
from lab.flights.steps import load_all
from lab.services.bisect import start_bisection, start_bisection_between, stop_bisection
from lab.services.bisect_step import step_bisection, step_bisections
from lab.services.settle import abort_flight
from lab.vcs import Trees

load_all(testcases)
load_all(recipes)

QUICK = Policy(confidence=0.9, alternations=1, at_once=1)
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Most of this has nothing to do with the database; what does, runs on both."""


def begin(lab: Lab, basis: int, failing: int, **more: object) -> int:
    with lab.sessions.begin() as session:
        return start_bisection(
            session, lab, job=JOB, testid=TESTID, basis_flight=basis, failing_flight=failing,
            **{"actor": "gate", "policy": QUICK, "revert": False, **more},  # type: ignore[arg-type]
        )  # fmt: skip


def between_flights(lab: Lab, commits: list[str], culprit: int, **more: object) -> int:
    """A bisection of all commits, of which those from `culprit` on are bad."""
    PRODUCT.bad |= set(commits[culprit:])
    return begin(lab, fly(lab, commits[0]), fly(lab, commits[-1]), **more)


@pytest.mark.parametrize("at_once", [2])
def test_a_bisection_finds_the_culprit_and_checks_that_reverting_it_helps(
    lab: Lab, tmp_path: Path, at_once: int
) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    number = between_flights(lab, commits, 7, policy=Policy(at_once=at_once), revert=True)
    ended = to_the_end(lab, number)
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"] == [{"tree": "xen", "commit": commits[7]}]
    assert ended.conclusion["passing"] == [[commits[6]]]
    assert ended.conclusion["confidence"] >= 0.99
    assert "Author: Ann <ann@example.org>" in ended.conclusion["message"]
    assert ended.conclusion["revert"] == "reverting it mends the failure"
    assert ended.reason.startswith(f"xen {commits[7][:12]} xen: change number 7")
    own = [probe for probe in ended.probes if probe.own]
    assert len(own) <= 16
    for probe in own:
        flight = flight_of(lab, probe.flight or 0)
        assert flight.intended is Blessing.REAL_BISECT
        assert flight.branch == "xen-unstable"
    # a build is made for each revision, and for none twice
    assert isinstance(lab.builds, FakeBuilds)
    tested = {probe.node for probe in ended.probes}
    assert {revision for revision, _ in lab.builds.made} == {node[0] for node in tested}


@SQLITE
def test_a_revision_that_does_not_build_is_passed_over_and_named_when_it_hides_the_culprit(
    lab: Lab, tmp_path: Path
) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    does_not_compile(lab, {commits[6]: "common/version.c:1: error: expected expression"})
    ended = to_the_end(lab, between_flights(lab, commits, 6))
    assert ended.state is BisectionState.INCONCLUSIVE
    assert [one["commit"] for one in ended.conclusion["suspects"]] == commits[6:8]
    skipped = next(probe for probe in ended.probes if probe.node == (commits[6],))
    assert skipped.result is Result.SKIP
    assert "expected expression" in skipped.reason


@SQLITE
def test_a_revision_that_fails_before_the_step_is_passed_over(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    PRODUCT.unbootable |= {commits[5], commits[6]}
    ended = to_the_end(lab, between_flights(lab, commits, 8))
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"][0]["commit"] == commits[8]
    assert all(
        probe.result is Result.SKIP and probe.reason == "host-boot fail: Xen does not boot"
        for probe in ended.probes
        if probe.node[0] in PRODUCT.unbootable
    )


@SQLITE
def test_broken_runs_are_made_again(new_lab: object, tmp_path: Path) -> None:
    lab: Lab = new_lab(retries=0)  # type: ignore[operator]
    commits = a_tree(lab, tmp_path / "xen")
    number = between_flights(lab, commits, 4)
    PRODUCT.broken = {commits[3]: 2, commits[4]: 1}
    ended = to_the_end(lab, number)
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"][0]["commit"] == commits[4]
    assert sum(probe.result is Result.BROKEN for probe in ended.probes) == 3


@SQLITE
def test_a_failure_that_does_not_come_back_blames_nobody(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    number = between_flights(lab, commits, 5)
    PRODUCT.bad.clear()
    ended = to_the_end(lab, number)
    assert ended.state is BisectionState.NOT_REPRODUCIBLE
    assert ended.conclusion["suspects"] == []
    assert "the failure does not reproduce: it passed in" in ended.reason


@SQLITE
def test_a_failure_that_comes_and_goes_is_found_all_the_same(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    number = between_flights(lab, commits, 2, policy=Policy(confidence=0.95, alternations=1))
    PRODUCT.lucky = cycle([True, False, False]).__next__  # it passes a third of the time
    ended = to_the_end(lab, number)
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"][0]["commit"] == commits[2]
    assert any(probe.result is Result.PASS and probe.node[0] in PRODUCT.bad for probe in ended.probes)


@SQLITE
def test_what_other_flights_have_shown_counts(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    PRODUCT.bad |= set(commits[7:])
    basis = fly(lab, commits[0])
    for known in (3, 6, 7, 9):
        fly(lab, commits[known])
    fly(lab, commits[5], guest_memory="256")  # another test
    fly(lab, commits[5], intended=Blessing.PLAY)  # does not count
    number = begin(lab, basis, fly(lab, commits[-1]))
    known_nodes = [probe.node[0] for probe in bisection_of(lab, number).probes if probe.purpose == "known"]
    assert known_nodes == [commits[known] for known in (3, 6, 7, 9)]
    ended = to_the_end(lab, number)
    assert ended.conclusion["suspects"][0]["commit"] == commits[7]
    assert not {commits[4], commits[5], commits[8]} & {probe.node[0] for probe in ended.probes}


@SQLITE
def test_a_merge_of_an_older_branch_says_what_it_brought_in(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "xen"
    commits = a_tree(lab, folder, 4)
    git(folder, "checkout", "--quiet", "-b", "side", commits[0])
    (folder / "side").write_text("x\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "side", when=50)
    side = git(folder, "rev-parse", "HEAD")
    git(folder, "checkout", "--quiet", "staging")
    git(folder, "merge", "--quiet", "--no-ff", "-m", "Merge side", "side", when=900)
    merge = git(folder, "rev-parse", "HEAD")
    Trees(lab.settings.home).add("xen", str(folder))
    PRODUCT.bad |= {side, merge}
    ended = to_the_end(lab, begin(lab, fly(lab, commits[2]), fly(lab, merge), revert=True))
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"] == [{"tree": "xen", "commit": merge}]
    assert ended.conclusion["outside"] == [side]
    assert "which merges commits older than the basis, not tested" in ended.reason
    assert ended.conclusion["revert"] == "it cannot be taken out of the failing revision cleanly"


@SQLITE
def test_a_bisection_goes_on_after_any_death(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever steps dies, again and again, before its transaction ends: no run is lost, none is made twice."""
    commits = a_tree(lab, tmp_path / "xen")
    number = between_flights(lab, commits, 7)

    def dies(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    killed = 0
    while not (before := bisection_of(lab, number)).state.final:
        for verb in ("save_probes", "note_progress", "end_bisection"):
            with monkeypatch.context() as patched:
                patched.setattr(bisections, verb, dies)
                try:
                    step_bisection(lab, number)
                except KeyboardInterrupt:
                    killed += 1
                    assert bisection_of(lab, number) == before
        step_bisections(lab)
        work(lab)
    assert killed > 10
    ended = bisection_of(lab, number)
    assert ended.conclusion["suspects"][0]["commit"] == commits[7]
    flights = [probe.flight for probe in ended.probes]
    assert len(set(flights)) == len(flights)


def test_two_who_step_at_once_make_one_step(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen")
    number = between_flights(lab, commits, 7)
    threads = [threading.Thread(target=step_bisections, args=(lab,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(probe.own for probe in bisection_of(lab, number).probes) == 1


@SQLITE
def test_several_bisections_go_on_side_by_side(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    PRODUCT.bad |= set(commits[2:])
    first = begin(lab, fly(lab, commits[0]), fly(lab, commits[-1]))
    with lab.sessions.begin() as session:
        second = start_bisection_between(
            session, lab, specs(commits[4]), job=JOB, testid=TESTID, tree="xen", good=commits[0], bad=commits[4],
            branch="ann", actor="ann", policy=QUICK, revert=False,
        )  # fmt: skip
    for number in (first, second):
        assert to_the_end(lab, number).conclusion["suspects"][0]["commit"] == commits[2]


@SQLITE
def test_the_same_is_not_searched_twice(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    number = between_flights(lab, commits, 3)
    one = bisection_of(lab, number)
    ends = (one.basis_flight or 0, one.failing_flight or 0)
    assert begin(lab, *ends) == number
    to_the_end(lab, number)
    assert begin(lab, *ends) == number  # it was answered
    assert begin(lab, ends[0], fly(lab, commits[4])) == number  # the culprit is in that, too
    other = begin(lab, *ends, again=True)
    assert other > number
    with lab.sessions.begin() as session:
        stop_bisection(session, lab, other, reason="enough")
    folder = tmp_path / "xen"
    git(folder, "revert", "--no-edit", commits[3], when=900)
    (folder / "more").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "breaks it again", when=1000)
    tip = git(folder, "rev-parse", "HEAD")
    Trees(lab.settings.home).add("xen", str(folder))
    PRODUCT.bad |= {tip}
    assert begin(lab, ends[0], fly(lab, tip)) > other  # the culprit was reverted: this is another failure


@SQLITE
def test_stopping_aborts_what_runs(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    number = between_flights(lab, commits, 3)
    step_bisections(lab)
    with lab.sessions.begin() as session:
        assert stop_bisection(session, lab, number, reason="enough")
    with lab.sessions.begin() as session:
        assert not stop_bisection(session, lab, number, reason="enough")
    stopped = bisection_of(lab, number)
    assert stopped.state is BisectionState.STOPPED
    for probe in stopped.running:
        assert flight_of(lab, probe.flight or 0).status is JobStatus.ABORTED
    assert step_bisections(lab) == 0


@SQLITE
def test_a_run_that_somebody_aborts_is_made_again(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    number = between_flights(lab, commits, 3)
    step_bisections(lab)
    with lab.sessions.begin() as session:
        abort_flight(session, lab, bisection_of(lab, number).running[0].flight or 0, reason="by mistake")
    assert to_the_end(lab, number).state is BisectionState.FOUND


@SQLITE
@pytest.mark.parametrize(
    ("like", "bound"), [(Hosts.SAME, 'name == "h1"'), (Hosts.EQUIVALENT, "equiv_a"), (Hosts.ANY, "")]
)
def test_probes_run_on_the_hosts_that_are_asked_for(new_lab: object, tmp_path: Path, like: Hosts, bound: str) -> None:
    lab: Lab = new_lab(a_host("h1"), a_host("h2"), a_host("h3", "hvm", "equiv-b"))  # type: ignore[operator]
    commits = a_tree(lab, tmp_path / "xen", 4)
    PRODUCT.bad |= set(commits[2:])
    basis = fly(lab, commits[0])
    failing = fly(lab, commits[-1], all_hostflags='name == "h1"')
    number = begin(lab, basis, failing, hosts_like=like)
    assert bisection_of(lab, number).template[1].runvars.get("host_hostflags", "") == bound
    step_bisections(lab)
    assert run_all(lab)
    assert host_of(lab, "h1").name == "h1"


@SQLITE
def test_what_cannot_be_bisected_is_refused_and_says_why(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 4)
    PRODUCT.bad |= set(commits[2:])
    good, bad, same = fly(lab, commits[0]), fly(lab, commits[3]), fly(lab, commits[3])
    PRODUCT.bad.clear()
    lucky = fly(lab, commits[3])
    for basis, failing, testid, said in [
        (bad, same, TESTID, "did not pass"),
        (good, lucky, TESTID, "did not fail"),
        (lucky, bad, TESTID, "test the same revisions"),
        (good, bad, "guest-start", "did not fail"),
        (good, 999, TESTID, "no job"),
    ]:
        with pytest.raises(ConfigError, match=said), lab.sessions.begin() as session:
            start_bisection(
                session, lab, job=JOB, testid=testid, basis_flight=basis, failing_flight=failing, actor="ann"
            )
    for good_name, bad_name, said in [
        ("staging", "staging", "the same commit"),
        (commits[3], commits[0], "does not descend"),
        ("nowhere", "staging", "has no revision"),
    ]:
        with pytest.raises(ConfigError, match=said), lab.sessions.begin() as session:
            start_bisection_between(
                session, lab, specs(commits[3]), job=JOB, testid=TESTID, tree="xen", good=good_name, bad=bad_name,
                branch="ann", actor="ann",
            )  # fmt: skip
    PRODUCT.bad |= {commits[1]}
    with pytest.raises(ConfigError, match="does not descend"):
        begin(lab, lucky, fly(lab, commits[1]))
    with lab.reads() as session:
        assert bisections.list_bisections(session) == []


@SQLITE
def test_of_two_trees_that_moved_the_right_one_is_blamed(lab: Lab, tmp_path: Path) -> None:
    assert isinstance(lab.builds, FakeBuilds)
    lab.builds.trees.add("mini-os")
    xen, other = a_tree(lab, tmp_path / "xen", 5), a_tree(lab, tmp_path / "mini-os", 4, tree="mini-os")
    PRODUCT.bad |= set(other[2:])

    def fly_both(one: str, two: str) -> int:
        build = spec("build-other", RECIPE, tree="mini-os", revision=two)
        test = spec(JOB, PRODUCT.recipe, xenbuildjob="build-amd64", host_xenbuildjob="build-other")
        number = submit(lab, *specs(one)[:1], build, test, branch="xen-unstable", intended=Blessing.REAL)
        work(lab)
        return number

    number = begin(lab, fly_both(xen[0], other[0]), fly_both(xen[-1], other[-1]))
    ended = to_the_end(lab, number)
    assert ended.state is BisectionState.FOUND
    assert ended.conclusion["suspects"] == [{"tree": "mini-os", "commit": other[2]}]
    assert len(ended.conclusion["failing"]) == 2


@SQLITE
def test_the_leader_takes_bisections_on(lab: Lab, tmp_path: Path) -> None:
    commits = a_tree(lab, tmp_path / "xen", 5)
    number = between_flights(lab, commits, 2)
    with leading(lab):
        waiting = threading.Event()
        for _ in range(100):
            if bisection_of(lab, number).running:
                break
            waiting.wait(0.05)
    assert bisection_of(lab, number).running
