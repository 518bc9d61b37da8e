"""The rules of OSSTest, one by one."""

from __future__ import annotations

import pytest
from past_flights import Results, a_past, a_run

from lab.flights.regression import TestPattern, Waiver, judge
from lab.flights.verdict import JOB_STATUS, NONE_EXECUTED, Finding, Kind, Outcome, Section, Verdict, verdict_of

HERE = 50


def judged(mine: Results, **past: object) -> Verdict:
    rules = {name: past.pop(name) for name in ("allow", "waived", "refer_to") if name in past}
    return judge(a_run(HERE, mine), a_past(HERE, mine, **past), **rules)  # type: ignore[arg-type]


def only(verdict: Verdict) -> Finding:
    (finding,) = verdict.findings
    return finding


def test_all_passed_is_perfect() -> None:
    verdict = judged({"test-a boot": "pass"}, baseline={40: {"test-a boot": "pass"}})
    assert (verdict.outcome, verdict.pushable, verdict.findings) == (Outcome.PERFECT, True, ())
    assert verdict.headline == "Perfect :-)"


@pytest.mark.parametrize(
    ("now", "before", "kind", "note", "blocks"),
    [
        ("fail", "pass", Kind.REGRESSION, "REGR. vs. 40", True),
        ("broken", "pass", Kind.REGRESSION, "REGR. vs. 40", True),
        ("fail", "fail", Kind.LIKE, "like 40", False),
        ("broken", "broken", Kind.LIKE, "like 40", False),
        ("broken", "fail", Kind.FAILED_IN, "failed in 40", False),
        ("fail", "broken", Kind.STATUS_IN, "broken in 40", False),
        ("fail", "blocked", Kind.BLOCKED_IN, "blocked in 40", False),
        ("fail", "starved", Kind.STARVED_IN, "starved in 40", False),
        ("fail", "skipped", Kind.BASELINE_UNTESTED, "baseline untested", False),
        ("fail", "running", Kind.BASELINE_UNTESTED, "baseline untested", False),
    ],
)
def test_a_step_is_compared_with_the_baseline(now: str, before: str, kind: Kind, note: str, blocks: bool) -> None:
    finding = next(
        one for one in judged({"test-a s": now}, baseline={40: {"test-a s": before}}).findings if one.testid == "s"
    )
    assert (finding.kind, finding.note, finding.blocks) == (kind, note, blocks)
    assert finding.reasons


def test_one_equal_failure_on_the_baseline_outranks_all_passes() -> None:
    passes = {flight: {"test-a s": "pass"} for flight in range(30, 40)}
    finding = only(judged({"test-a s": "fail"}, baseline={**passes, 20: {"test-a s": "fail"}}))
    assert finding.note == "like 20"
    assert "it would block without 20" in finding.reasons[-1]


def test_of_a_build_a_pass_outranks_everything_and_nothing_excuses_it() -> None:
    verdict = judged(
        {"build-a b": "fail"},
        baseline={30: {"build-a b": "fail"}, 20: {"build-a b": "pass"}},
        same={49: {"build-a b": "pass"}},
    )
    assert (only(verdict).note, verdict.outcome) == ("REGR. vs. 20", Outcome.REGRESSIONS)


def test_the_newest_of_equal_flights_is_named() -> None:
    finding = only(judged({"test-a s": "fail"}, baseline={31: {"test-a s": "pass"}, 37: {"test-a s": "pass"}}))
    assert (finding.note, finding.ref_flight) == ("REGR. vs. 37", 37)


def test_what_never_passed_does_not_block() -> None:
    verdict = judged({"test-a s": "fail"}, baseline={40: {"test-a s": "fail"}}, never=("test-a s",))
    assert (only(verdict).kind, only(verdict).note, verdict.pushable) == (Kind.NEVER_PASS, "never pass", True)


def test_what_was_blocked_or_starved_is_judged_elsewhere() -> None:
    for status in ("blocked", "starved"):
        finding = only(judged({"test-a build-check": status}, baseline={40: {"test-a build-check": "pass"}}))
        assert (finding.kind, finding.note, finding.section) == (Kind.NA, "n/a", Section.NONBLOCKING)


def test_a_pass_of_the_same_versions_makes_it_intermittent() -> None:
    verdict = judged(
        {"test-a s": "fail"}, baseline={40: {"test-a s": "pass"}}, same={49: {"test-a s": "pass", "test-b t": "pass"}}
    )
    finding = only(verdict)
    assert (finding.kind, finding.note, finding.section) == (Kind.HEISENBUG, "pass in 49", Section.INTERMITTENT)
    assert verdict.pushable
    assert "REGR. vs. 40" in finding.reasons[-1]


def test_the_failures_of_the_flight_that_excuses_count_too() -> None:
    verdict = judged(
        {"test-a s": "fail", "test-b t": "blocked", "test-c u": "pass"},
        baseline={40: {"test-a s": "pass", "test-b t": "pass", "test-c u": "pass"}},
        same={49: {"test-a s": "pass", "test-b t": "fail", "test-c u": "fail"}},
    )
    told = {one.job: (one.kind, one.seen_in, one.note, one.blocks) for one in verdict.findings}
    assert told["test-a"] == (Kind.HEISENBUG, None, "pass in 49", False)
    # of what 49 failed, the flight itself has passed one ...
    assert told["test-c"] == (Kind.HEISENBUG, 49, "pass in 50", False)
    # ... and says nothing of another, which is told as its own is not run
    assert told["test-b"] == (Kind.NA, None, "n/a", False)


def test_a_failure_that_only_the_excusing_flight_had_can_block() -> None:
    verdict = judged(
        {"test-a s": "fail", "test-b first": "fail"},
        baseline={40: {"test-a s": "pass", "test-b first": "pass", "test-b second": "pass"}},
        same={49: {"test-a s": "pass", "test-b first": "pass", "test-b second": "fail"}},
    )
    blocker = only(Verdict(flight=HERE, outcome=verdict.outcome, findings=verdict.blockers))
    assert (blocker.testid, blocker.seen_in, blocker.note) == ("second", 49, "REGR. vs. 40")
    assert not verdict.pushable


def test_excuses_are_followed_to_the_end_and_each_flight_once() -> None:
    verdict = judged(
        {"test-a s": "fail", "test-b t": "pass"},
        baseline={40: {"test-a s": "pass", "test-b t": "pass", "test-c u": "pass"}},
        same={
            49: {"test-a s": "pass", "test-c u": "fail"},
            48: {"test-a s": "fail", "test-c u": "pass", "test-b t": "fail"},
        },
    )
    assert [(one.job, one.seen_in, one.note) for one in verdict.findings] == [
        ("test-a", None, "pass in 49"), ("test-c", 49, "pass in 48"), ("test-b", 48, "pass in 50"),
    ]  # fmt: skip
    assert verdict.pushable


def test_a_broken_job_blocks_even_if_its_step_does_not() -> None:
    verdict = judged({"test-a host-install": "broken"}, baseline={40: {"test-a host-install": "starved"}})
    told = [(one.testid, one.kind, one.blocks) for one in verdict.findings]
    assert told == [(JOB_STATUS, Kind.JOB_STATUS, True), ("host-install", Kind.STARVED_IN, False)]
    assert verdict.outcome is Outcome.FAILURES


def test_what_the_lab_broke_is_no_regression_of_the_product() -> None:
    verdict = judged({"test-a s": "broken"}, baseline={40: {"test-a s": "pass"}})
    assert (verdict.outcome, verdict.headline) == (Outcome.FAILURES, "Failures and problems with tests :-(")


def test_a_job_that_passed_may_have_a_step_that_blocks() -> None:
    run = a_run(HERE, {"test-a part/1": "fail"})
    job = run.jobs[0].__class__(name="test-a", status="pass", bad=run.jobs[0].bad)
    past = a_past(HERE, {"test-a part/1": "fail"}, baseline={40: {"test-a part/1": "pass"}})
    verdict = judge(run.__class__(flight=HERE, jobs=(job,)), past)
    assert [one.note for one in verdict.blockers] == ["REGR. vs. 40"]


@pytest.mark.parametrize(
    ("status", "testid", "kind"),
    [
        ("running", NONE_EXECUTED, Kind.UNFINISHED),
        ("queued", NONE_EXECUTED, Kind.UNFINISHED),
        ("aborted", JOB_STATUS, Kind.JOB_STATUS),
        ("fail", NONE_EXECUTED, Kind.JOB_STATUS),
        ("blocked", NONE_EXECUTED, Kind.NA),
        ("starved", NONE_EXECUTED, Kind.NA),
    ],
)
def test_a_job_without_steps(status: str, testid: str, kind: Kind) -> None:
    run = a_run(HERE, {"test-a s": "pass"})
    job = run.jobs[0].__class__(name="test-a", status=status)
    finding = only(judge(run.__class__(flight=HERE, jobs=(job,)), a_past(HERE, {})))
    assert (finding.testid, finding.kind, finding.blocks) == (testid, kind, kind is not Kind.NA)


def test_a_step_that_found_itself_that_it_cannot_run_is_compared() -> None:
    run = a_run(HERE, {"test-a xsm": "blocked"})
    (step,) = run.jobs[0].bad
    own = step.__class__(testid="xsm", status="blocked", own=True)
    job = run.jobs[0].__class__(name="test-a", status="blocked", bad=(own,))
    past = a_past(HERE, {"test-a xsm": "blocked"}, baseline={40: {"test-a xsm": "pass"}})
    assert [one.note for one in judge(run.__class__(flight=HERE, jobs=(job,)), past).blockers] == ["REGR. vs. 40"]


def test_people_have_the_last_word() -> None:
    mine, baseline = {"test-a-rtds s": "fail", "test-b s": "fail"}, {40: {"test-a-rtds s": "pass", "test-b s": "pass"}}
    verdict = judged(mine, baseline=baseline, allow=[TestPattern(job="test-*-rtds*")], waived={Waiver("test-b", "s")})
    assert [(one.kind, one.section, one.note) for one in verdict.findings] == [
        (Kind.ALLOWABLE, Section.ALLOWABLE, "REGR. vs. 40"), (Kind.WAIVED, Section.ALLOWABLE, "REGR. vs. 40"),
    ]  # fmt: skip
    assert verdict.pushable
    assert not judged(mine, baseline=baseline, waived={Waiver("test-b", "t")}).pushable


def test_without_a_baseline_nothing_that_failed_is_pushed() -> None:
    verdict = judged({"test-a s": "fail"})
    assert verdict.outcome is Outcome.TOLERABLE
    assert not verdict.pushable
    assert "never tested" in verdict.missing[0]
    assert judged({"test-a s": "pass"}).pushable


def test_a_baseline_that_shares_no_job_says_nothing() -> None:
    verdict = judged({"test-a s": "pass"}, baseline={40: {"test-b s": "pass"}})
    assert not verdict.pushable
    assert "share no job" in verdict.missing[0]


def test_a_verdict_survives_json() -> None:
    verdict = judged({"test-a s": "fail"}, baseline={40: {"test-a s": "pass"}})
    assert verdict_of(verdict.as_json()) == verdict
