"""Counting: when a failure is called new."""

from __future__ import annotations

import pytest
from past_flights import a_past, a_run

from lab.flights.evidence import (
    Beta,
    Counts,
    EvidencePolicy,
    TestRuns,
    judge_by_evidence,
    new_probability,
    passes_to_clear,
)
from lab.flights.regression import Waiver
from lab.flights.verdict import Finding, Kind

POLICY = EvidencePolicy()


def runs(before: tuple[int, int], now: tuple[int, int]) -> TestRuns:
    return TestRuns(before={"x86": Counts(*before)}, now={"x86": Counts(*now)})


def finding(of: TestRuns) -> Finding:
    mine = {"test-a s": "fail"}
    verdict = judge_by_evidence(
        a_run(50, mine), a_past(50, mine, baseline={40: {"test-a s": "pass"}}), {("test-a", "s"): of}
    )
    (one,) = verdict.findings
    return one


def test_the_likelihood_of_a_sequence() -> None:
    # uniform prior: one failure, one pass, in this order: the integral of p(1-p) is 1/6
    assert Beta(1, 1).log_likelihood(1, 1) == pytest.approx(-1.791759, abs=1e-6)
    assert Beta(1, 1).log_likelihood(0, 0) == 0


def test_a_failure_of_what_never_failed_is_new() -> None:
    one = finding(runs((0, 50), (1, 0)))
    assert one.kind is Kind.REGRESSION
    assert one.blocks
    assert one.note.startswith("REGR. vs. 40 P(new)=0.9")


def test_one_pass_of_the_revision_is_not_enough_to_excuse_it() -> None:
    """OSSTest would let it through."""
    one = finding(runs((0, 50), (1, 1)))
    assert one.blocks
    assert one.note.startswith("perhaps REGR.")
    assert "further passes of this revision on such hosts would clear it" in one.reasons[-1]


def test_one_failure_long_ago_does_not_excuse_a_test_that_always_fails_now() -> None:
    """OSSTest would call it 'like' that flight, whatever else was seen."""
    assert finding(runs((1, 60), (3, 0))).blocks


def test_a_test_that_often_failed_before_is_known() -> None:
    one = finding(runs((12, 20), (1, 0)))
    assert (one.kind, one.blocks) == (Kind.LIKE, False)


def test_enough_passes_clear_it_and_just_so_many() -> None:
    of = runs((0, 50), (1, 0))
    more = passes_to_clear(of, POLICY, "x86")
    assert more is not None
    assert more >= 2
    assert new_probability(of.with_passes(more, "x86"), POLICY) < POLICY.old_at
    assert new_probability(of.with_passes(more - 1, "x86"), POLICY) >= POLICY.old_at


def test_a_failure_is_measured_by_its_own_class_of_hosts() -> None:
    flaky_there = {"slow": Counts(10, 10), "fast": Counts(0, 200)}
    there = TestRuns(before=flaky_there, now={"slow": Counts(1, 0)})
    elsewhere = TestRuns(before=flaky_there, now={"fast": Counts(1, 0)})
    assert new_probability(there, POLICY) < POLICY.old_at
    assert new_probability(elsewhere, POLICY) > 0.9


def test_without_any_run_the_suspicion_is_all_there_is() -> None:
    assert new_probability(TestRuns(), POLICY) == pytest.approx(POLICY.suspicion)


def test_waivers_hold_here_too() -> None:
    mine = {"test-a s": "fail"}
    past = a_past(50, mine, baseline={40: {"test-a s": "pass"}})
    verdict = judge_by_evidence(
        a_run(50, mine), past, {("test-a", "s"): runs((0, 50), (2, 0))}, waived={Waiver("test-a", "s")}
    )
    assert verdict.pushable
    assert verdict.findings[0].kind is Kind.WAIVED
