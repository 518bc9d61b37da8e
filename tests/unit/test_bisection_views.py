"""What is told of a bisection that goes on."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from statistics import fmean

import pytest
from bisection_trials import a_line, bisect, with_culprit

from lab.flights.bisection import Policy
from lab.flights.bisection_runs import Bisection, BisectionState, MovingTree, ProbeRun, Result, belief_of
from lab.flights.bisection_views import bisection_view, runs_left, seconds_left, standings
from lab.flights.revision_graph import RevisionGraph

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def bisected(graph: RevisionGraph, probes: list[ProbeRun], **more: object) -> Bisection:
    given: dict[str, object] = {
        "id": 1, "branch": "b", "job": "j", "testid": "t", "state": BisectionState.RUNNING, "template": (),
        "trees": (MovingTree(name="r", repository="r", builds=("build",)),), "histories": graph.histories,
    }  # fmt: skip
    return Bisection(**{**given, "probes": tuple(probes), **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("commits", [8, 64, 256])
def test_how_many_runs_are_left_is_known_within_two_or_three(commits: int) -> None:
    graph = a_line(commits)
    wrong = []
    for seed in range(6):
        culprit = random.Random(seed).randrange(commits)
        seen = bisect(graph, with_culprit(graph, culprit), seed=seed).observations
        runs = [
            ProbeRun(
                number=number, flight=number, node=one.node, result=Result(one.outcome.value),
                purpose="basis" if one.original else "search",
            )
            for number, one in enumerate(seen)
        ]  # fmt: skip
        for done in range(2, len(runs)):
            now = bisected(graph, runs[:done])
            wrong.append(abs(runs_left(now, belief_of(now)) - (len(runs) - done)))
    assert fmean(wrong) <= 2.5


def test_how_long_it_takes_is_known_once_a_run_has_ended() -> None:
    graph = a_line(4)
    running = ProbeRun(number=1, flight=1, node=graph.failure, purpose="reproduce", result=Result.RUNNING, started=NOW)
    ended = ProbeRun(
        number=2, flight=2, node=graph.basis, purpose="reproduce", result=Result.PASS, started=NOW,
        finished=NOW + timedelta(minutes=4),
    )  # fmt: skip
    assert seconds_left(bisected(graph, [running]), 6) is None
    assert seconds_left(bisected(graph, [running, ended], policy=Policy(at_once=2)), 6) == 720
    view = bisection_view(bisected(graph, [running, ended], state=BisectionState.STOPPED))
    assert view["runs_left"] == 0


def test_a_commit_that_passed_and_failed_is_told_as_both() -> None:
    graph = a_line(4)
    results = [Result.PASS, Result.FAIL, Result.RUNNING]
    runs = [
        ProbeRun(number=number, flight=number, node=graph.node_of(1), purpose="search", result=result)
        for number, result in enumerate(results)
    ]
    [standing] = standings(bisected(graph, runs)).values()
    assert standing.word == "both"
    assert standing.running == 1
