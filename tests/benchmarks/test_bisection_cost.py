"""What a bisection's decision costs over long histories, measured against what is known of short ones."""

from __future__ import annotations

import time

import pytest
from bisection_trials import a_line, bisect, originals, with_culprit

from lab.flights.bisection import Found, Policy, decide

pytestmark = pytest.mark.benchmark


def test_a_decision_over_twelve_thousand_commits_takes_less_than_a_second() -> None:
    """OSSTest's longest known bisection had 12,695 nodes."""
    graph = a_line(12_695)
    end = bisect(graph, with_culprit(graph, 4_321), flake=0.05, seed=1, policy=Policy(at_once=4))
    assert isinstance(end.decision, Found)
    slowest = 0.0
    for seen in range(2, len(end.observations)):
        begun = time.process_time()
        decide(graph, end.observations[:seen], Policy(at_once=4))
        slowest = max(slowest, time.process_time() - begun)
    print(f"slowest decision of {len(end.observations)}: {slowest:.3f} s")
    assert slowest < 1


def test_the_first_decision_grows_with_the_history_and_not_faster() -> None:
    def cost(commits: int) -> float:
        graph, best = a_line(commits), 9.9
        for _ in range(5):
            begun = time.process_time()
            decide(graph, originals(graph))
            best = min(best, time.process_time() - begun)
        return best

    assert cost(8_000) < 16 * cost(1_000)  # the sets are numbers of that many bits
