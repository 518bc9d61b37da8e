"""What holds of every verdict, whatever happened."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from past_flights import a_past, a_run

from lab.flights.evidence import Counts, EvidencePolicy, TestRuns, new_probability
from lab.flights.past_results import Past
from lab.flights.regression import Waiver, judge
from lab.flights.verdict import JOB_STATUS, Kind, Outcome, verdict_of

TESTS = ("build-x b", "test-a s", "test-a t", "test-b s", "test-c s")
STATUSES = ("pass", "pass", "fail", "broken", "blocked", "starved")
results = st.dictionaries(st.sampled_from(TESTS), st.sampled_from(STATUSES), min_size=1)
flights = st.dictionaries(st.integers(1, 49), results, max_size=4)
never = st.sets(st.sampled_from(TESTS)).map(tuple)
HERE = 50


def shifted(others: Mapping[int, Mapping[str, str]]) -> dict[int, Mapping[str, str]]:
    return {flight + 100: result for flight, result in others.items()}


@given(mine=results, same=flights, baseline=flights, never=never)
def test_a_verdict_is_whole(
    mine: dict[str, str], same: dict[int, dict[str, str]], baseline: dict[int, dict[str, str]], never: tuple[str, ...]
) -> None:
    past = a_past(HERE, mine, same=shifted(same), baseline=baseline, never=never)
    verdict = judge(a_run(HERE, mine), past)
    own = {(one.job, one.testid) for one in verdict.findings if one.seen_in is None and one.testid != JOB_STATUS}
    assert own == {tuple(name.split(" ", 1)) for name, status in mine.items() if status != "pass"}
    assert all(one.reasons for one in verdict.findings)
    assert verdict.pushable == (not verdict.blockers and not verdict.missing)
    assert (verdict.outcome is Outcome.PERFECT) == (not verdict.findings)
    assert verdict_of(verdict.as_json()) == verdict
    for one in verdict.blockers:
        if one.kind is Kind.REGRESSION:
            assert one.ref_flight in past.baseline
            assert past.status(one.signature, one.ref_flight or 0) == "pass"
            # nothing that passed with the same versions blocks, but for builds
            elsewhere = [past.status(one.signature, run.flight) for run in past.same]
            assert one.job.startswith("build-") or "pass" not in elsewhere
    for one in verdict.findings:
        if one.kind is Kind.HEISENBUG:
            assert past.status(one.signature, one.ref_flight or 0) == "pass"


@given(mine=results, same=flights, baseline=flights)
def test_the_failures_of_whatever_excuses_are_told(
    mine: dict[str, str], same: dict[int, dict[str, str]], baseline: dict[int, dict[str, str]]
) -> None:
    past = a_past(HERE, mine, same=shifted(same), baseline=baseline)
    verdict = judge(a_run(HERE, mine), past)
    told = {one.signature for one in verdict.findings}
    runs = {run.flight: run for run in past.same}
    for one in verdict.findings:
        if one.kind is Kind.HEISENBUG and one.ref_flight in runs:
            assert {(job.name, step.testid) for job, step in runs[one.ref_flight].steps()} <= told


@given(mine=results, same=flights, baseline=flights)
def test_waiving_all_blockers_opens_it_and_waiving_others_changes_nothing(
    mine: dict[str, str], same: dict[int, dict[str, str]], baseline: dict[int, dict[str, str]]
) -> None:
    run, past = a_run(HERE, mine), a_past(HERE, mine, same=shifted(same), baseline=baseline)
    verdict = judge(run, past)
    blockers = {Waiver(*one.signature) for one in verdict.blockers}
    assert not judge(run, past, waived=blockers).blockers
    others = {Waiver(*one.signature) for one in verdict.findings} - blockers
    assert judge(run, past, waived=others).blockers == verdict.blockers


@given(mine=results, baseline=flights)
def test_more_passes_on_the_baseline_never_let_a_test_through(
    mine: dict[str, str], baseline: dict[int, dict[str, str]]
) -> None:
    run, past = a_run(HERE, mine), a_past(HERE, mine, baseline=baseline)
    more = Past(
        same=past.same,
        baseline=(*past.baseline, 99),
        seen={test: {**seen, 99: "pass"} for test, seen in past.seen.items()},
        passed=past.passed,
        common=past.common,
    )
    before = {one.signature for one in judge(run, past).blockers}
    assert before <= {one.signature for one in judge(run, more).blockers}


counts = st.builds(Counts, st.integers(0, 30), st.integers(0, 30))
by_class = st.dictionaries(st.sampled_from(["x", "y"]), counts, max_size=2)


@given(before=by_class, now=by_class)
def test_evidence_moves_the_probability_the_right_way(before: dict[str, Counts], now: dict[str, Counts]) -> None:
    policy = EvidencePolicy()
    runs = TestRuns(before=before, now=now)
    probability = new_probability(runs, policy)
    assert 0 <= probability <= 1
    failed_more_before = TestRuns(
        before={**before, **{name: before.get(name, Counts()) + Counts(fails=5) for name in now}}, now=now
    )
    if all(one.fails and not one.passes for one in now.values()):
        assert new_probability(failed_more_before, policy) <= probability + 1e-12
