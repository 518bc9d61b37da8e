"""Signatures, and the lives of regressions over any sequence of verdicts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.errors import LabBug
from lab.flights.regression_life import (
    MOVES,
    VERIFIED_AFTER,
    Failed,
    KnownIssue,
    Life,
    Regression,
    after_verdict,
    move,
    passed_tests,
)
from lab.flights.signature import LONGEST, normalise, signature
from lab.flights.verdict import Finding, Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = st.sampled_from(
    ["guest", "lost", "pages", "17", "0xffff82d080", "/tmp/a b", "/var/log/x.log:12", "d3v0", "Dom12", "4.5s", "256MiB",
     "192.168.77.1:22", "00:16:3e:aa:bb:01", "2026-04-01T10:11:12Z", "10:11:12", "deadbeef12", "\x1b[31m", "100%", "é",
     "00112233-4455-6677-8899-aabbccddeeff", "<n>", "x86_64", "v4.17", "\u202e", "q35", "--", "a1b2"]
)  # fmt: skip
PIECES = st.text("0123456789abcdefnx:./- <>dom%kms_+`T\n", max_size=400)
TEXTS = st.one_of(st.text(max_size=80), PIECES, st.lists(WORDS, max_size=8).map(" ".join))


@given(TEXTS)
@example("6 f2/T:s91")  # a placeholder stands before a path only after the numbers are replaced
@example("aa:bb:cc:dd:ee:ff" + "x" * LONGEST)
def test_a_text_is_normalised_once_and_for_all(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert len(once) <= LONGEST
    assert not re.search(r"\d", re.sub(r"<\w+>", "", once)) or not text.isascii()
    assert signature(text) == signature(once)
    assert re.fullmatch("[0-9a-f]{16}", signature(text))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 99), st.integers(1, 99))
def test_what_differs_from_run_to_run_does_not_count(a: int, b: int, c: int, d: int) -> None:
    one = f"d{a}v0 lost {c} of {b} pages at 0x{a:08x} (/tmp/run-{b}/log), after {c}.{d} s on 10.0.0.{d}"
    two = f"d{b}v0 lost {d} of {a} pages at 0x{b:08x} (/tmp/run-{a}/log), after {d}.{c} s on 10.0.0.{c}"
    assert normalise(one) == normalise(two)


HOSTS = ("sabro0", "pinot1", "qemu-a", "qemu-a-2", "host", "n")


@given(TEXTS, st.sampled_from(HOSTS), st.sampled_from(HOSTS))
def test_the_host_does_not_count(text: str, one: str, other: str) -> None:
    assert signature(f"{one}: lost; {text}", HOSTS) == signature(f"{other}: lost; {text}", HOSTS)
    once = normalise(f"{one}: lost; {text}", HOSTS)
    assert once.startswith("<host>: lost")
    assert normalise(once, HOSTS) == once


def test_a_word_that_has_a_hosts_name_in_it_is_left() -> None:
    assert normalise("sabro0-old and xsabro0 differ", ["sabro0"]) == normalise("sabro0-old and xsabro0 differ")
    assert normalise("a.b failed", ["a.b"]) == "<host> failed"
    assert normalise("axb failed", ["a.b"]) == "axb failed"


@pytest.mark.parametrize(
    ("one", "other"),
    [("guest lost 4 pages", "guest lost no pages"), ("timeout", "Xen panicked"), ("migration failed", "save failed")],
)
def test_the_words_count(one: str, other: str) -> None:
    assert signature(one) != signature(other)


@given(st.sampled_from(Life), st.sampled_from(Life))
def test_states_move_only_where_they_may(old: Life, new: Life) -> None:
    one = Regression(
        branch="b", job="j", testid="t", signature="s", life=old, first_flight=1, last_flight=1, since=NOW, changed=NOW
    )
    if new is old or new in MOVES[old]:
        assert move(one, new).life is new
    else:
        with pytest.raises(LabBug):
            move(one, new)


TESTS = (("test-a", "s"), ("test-b", "s"))
OUTCOMES = st.sampled_from(["pass", "lost 4 pages", "lost 9 pages", "Xen panicked", "not run"])
FLIGHTS = st.lists(st.tuples(OUTCOMES, OUTCOMES, st.booleans()), max_size=14)


@given(FLIGHTS)
def test_no_regression_is_lost_and_what_is_verified_was_seen_passing(flights: list[tuple[str, str, bool]]) -> None:
    known: dict[int, Regression] = {}
    passes: dict[int, int] = {}
    for number, (first, second, retested) in enumerate(flights, 1):
        outcomes = dict(zip(TESTS, (first, second), strict=True))
        failed = [
            Failed(
                finding=Finding(
                    job=job, testid=testid, status="fail", kind=Kind.REGRESSION, blocks=True, note="REGR. vs. 1",
                    ref_flight=1,
                ),
                text=text, signature=signature(text), fails=2 if retested else 1,
            )
            for (job, testid), text in outcomes.items()
            if text not in ("pass", "not run")
        ]  # fmt: skip
        passed = [test for test, text in outcomes.items() if text == "pass"]
        at = NOW + timedelta(hours=number)
        changes = list(after_verdict(list(known.values()), failed, passed, branch="b", flight=number, now=at))
        # the same verdict again changes nothing
        for change in changes:
            one = change.regression
            if change.old is None:
                assert one.id == 0
                assert one.life is (Life.CONFIRMED if retested else Life.NEW)
                one = replace(one, id=len(known) + 1)
            else:
                assert one.life is change.old or one.life in MOVES[change.old]
                assert (one.life is not change.old) <= bool(change.reason)
            known[one.id] = one
        assert not list(after_verdict(list(known.values()), failed, passed, branch="b", flight=number, now=at))
        for one in known.values():
            text = outcomes[one.test]
            if text == "pass":
                passes[one.id] = passes.get(one.id, 0) + 1
                assert not one.life.open
            elif text != "not run" and signature(text) == one.signature:
                passes[one.id] = 0
                assert one.life.open
            assert (one.life is Life.VERIFIED) <= (passes.get(one.id, 0) >= VERIFIED_AFTER)
        keys = [(one.test, one.signature) for one in known.values()]
        assert len(keys) == len(set(keys))
        for fail in failed:  # every failure belongs to one that is open
            assert any(
                one.test == fail.finding.signature and one.signature == fail.signature and one.life.open
                for one in known.values()
            )


def test_a_test_that_passed_and_failed_with_the_same_versions_has_not_passed() -> None:
    runs = {("a", "s"): {1: "pass", 2: "fail"}, ("b", "s"): {1: "pass", 2: "skipped"}, ("c", "s"): {1: "blocked"}}
    assert passed_tests(runs, [1, 2]) == {("b", "s")}
    assert passed_tests(runs, [1]) == {("a", "s"), ("b", "s")}


@given(st.integers(-100, 100))
def test_a_known_issue_is_over_when_it_expires_or_is_ended(hours: int) -> None:
    issue = KnownIssue(
        id=1, job="test-*", testid="guest-*", text="lost <n> pages", owner="ann", reason="r", created=NOW,
        expires=NOW + timedelta(hours=24),
    )  # fmt: skip
    at = NOW + timedelta(hours=hours)
    assert issue.in_force(at) == (hours < 24)
    assert replace(issue, ended=NOW + timedelta(hours=3)).in_force(at) == (hours < 3)
    assert issue.matches("test-a", "guest-start", normalise("Guest LOST 17 pages"))
    assert not issue.matches("test-a", "host-boot", "lost <n> pages")
    assert not issue.matches("test-a", "guest-start", "panicked")
