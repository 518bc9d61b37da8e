"""The life of a regression: new, confirmed, bisecting, blamed, fixed, verified; carried over between flights. Pure.

A regression is a test of a branch that fails with a certain message (its signature) where it passed before. What a
flight's verdict says moves it; so do bisections.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from lab.errors import LabBug
from lab.flights.past_results import PASS, Signature
from lab.flights.verdict import Finding, Kind

VERIFIED_AFTER: Final = 3
"""So many flights in which the test passed, one after the other, verify that it is fixed."""


class Life(enum.Enum):
    """Where a regression stands."""

    #: seen once
    NEW = "new"
    #: seen again: in another flight, or by a retest
    CONFIRMED = "confirmed"
    #: the commit is searched
    BISECTING = "bisecting"
    #: the commit was found
    BLAMED = "blamed"
    #: the test has passed on a newer revision
    FIXED = "fixed"
    #: it has passed often enough
    VERIFIED = "verified"

    @property
    def open(self) -> bool:
        """Whether somebody has something to do."""
        return self not in (Life.FIXED, Life.VERIFIED)


_L = Life
MOVES: Final[Mapping[Life, frozenset[Life]]] = {
    _L.NEW: frozenset({_L.CONFIRMED, _L.BISECTING, _L.BLAMED, _L.FIXED}),
    _L.CONFIRMED: frozenset({_L.BISECTING, _L.BLAMED, _L.FIXED}),
    # a search that ends without a culprit leaves it confirmed
    _L.BISECTING: frozenset({_L.BLAMED, _L.CONFIRMED, _L.FIXED}),
    _L.BLAMED: frozenset({_L.BISECTING, _L.FIXED}),
    # it has come back
    _L.FIXED: frozenset({_L.VERIFIED, _L.CONFIRMED}),
    _L.VERIFIED: frozenset({_L.CONFIRMED}),
}


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A regression; `id` is 0 until it is kept. `passes` counts flights since it was fixed, `culprit` is a commit."""

    id: int = 0
    branch: str
    job: str
    testid: str
    signature: str
    sample: str = ""
    life: Life = Life.NEW
    first_flight: int
    last_flight: int
    since: datetime
    changed: datetime
    owner: str = ""
    bisection: int | None = None
    culprit: str = ""
    passes: int = 0

    @property
    def test(self) -> Signature:
        """(job, testid)"""
        return self.job, self.testid


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happened to a regression in a line; `old` is None when it is new here."""

    regression: Regression
    old: Life | None
    reason: str


def move(one: Regression, to: Life, **changes: object) -> Regression:
    """The regression in its next state. `LabBug` when it cannot go there."""
    if to is not one.life and to not in MOVES[one.life]:
        raise LabBug(f"a regression cannot go from {one.life.value} to {to.value}")
    return replace(one, life=to, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A finding with what its step said, and how often the test failed with these versions, retests among them."""

    finding: Finding
    text: str
    signature: str
    fails: int = 1


def counts_as_regression(finding: Finding) -> bool:
    """Whether a finding is about something that worked with the baseline, whoever lets it pass."""
    return finding.kind in (Kind.REGRESSION, Kind.ALLOWABLE, Kind.WAIVED) and finding.ref_flight is not None


def after_verdict(
    known: Sequence[Regression],
    failed: Iterable[Failed],
    passed: Collection[Signature],
    *,
    branch: str,
    flight: int,
    now: datetime,
) -> Iterator[Change]:
    """What a verdict on a branch's flight does to its regressions; nothing if it is an older flight than they know.

    `known` are those of the branch; `passed` the tests that passed in the flight and failed in none of its versions.
    """
    by_key = {(one.test, one.signature): one for one in known}
    failing: set[Signature] = set()
    for one in failed:
        test = one.finding.signature
        failing.add(test)
        mine = by_key.get((test, one.signature))
        if mine is None:
            yield _begun(one, branch=branch, flight=flight, now=now)
        elif flight > mine.last_flight:
            yield from _seen_again(mine, one, flight=flight, now=now)
    for mine in known:
        if mine.test in passed and mine.test not in failing and flight > mine.last_flight:
            yield from _passed(mine, flight=flight, now=now)


def _begun(one: Failed, *, branch: str, flight: int, now: datetime) -> Change:
    again = one.fails > 1
    return Change(
        regression=Regression(
            branch=branch, job=one.finding.job, testid=one.finding.testid, signature=one.signature,
            sample=one.text[:500], life=Life.CONFIRMED if again else Life.NEW, first_flight=flight, last_flight=flight,
            since=now, changed=now,
        ),
        old=None,
        reason=one.finding.note + (f"; it failed {one.fails} times with this revision" if again else ""),
    )  # fmt: skip


def _seen_again(mine: Regression, one: Failed, *, flight: int, now: datetime) -> Iterator[Change]:
    to, reason = mine.life, ""
    if mine.life is Life.NEW:
        to, reason = Life.CONFIRMED, f"it failed again in flight {flight}"
    elif not mine.life.open:
        to, reason = Life.CONFIRMED, f"it came back in flight {flight}: {one.finding.note}"
    changed = now if to is not mine.life else mine.changed
    yield Change(regression=move(mine, to, last_flight=flight, passes=0, changed=changed), old=mine.life, reason=reason)


def _passed(mine: Regression, *, flight: int, now: datetime) -> Iterator[Change]:
    if mine.life is Life.VERIFIED:
        return
    passes = mine.passes + 1
    if mine.life.open:
        fixed = move(mine, Life.FIXED, passes=1, last_flight=flight, changed=now)
        yield Change(regression=fixed, old=mine.life, reason=f"it passed in flight {flight}")
    elif passes >= VERIFIED_AFTER:
        verified = move(mine, Life.VERIFIED, passes=passes, last_flight=flight, changed=now)
        yield Change(regression=verified, old=mine.life, reason=f"it passed {passes} times in a row")
    else:
        yield Change(regression=replace(mine, passes=passes, last_flight=flight), old=mine.life, reason="")


@dataclass(frozen=True, kw_only=True)
class KnownIssue:
    """Something that people know of: tests by globs, `text` a part of the normalised message (empty: any).

    It opens no gate and hides nothing: it says beside a failure whose it is, until it `expires`.
    """

    id: int
    job: str
    testid: str
    text: str
    owner: str
    reason: str
    url: str = ""
    actor: str = ""
    created: datetime
    expires: datetime
    ended: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether somebody still stands for it."""
        return now < self.expires and (self.ended is None or now < self.ended)

    def matches(self, job: str, testid: str, normalised: str) -> bool:
        """Whether it is about this failure."""
        tests = fnmatch.fnmatchcase(job, self.job) and fnmatch.fnmatchcase(testid, self.testid)
        return tests and self.text.lower() in normalised


def passed_tests(runs: Mapping[Signature, Mapping[int, str]], flights: Collection[int]) -> set[Signature]:
    """The tests that passed in one of these flights and failed in none."""
    found = set()
    for test, seen in runs.items():
        statuses = {seen[flight] for flight in flights if flight in seen}
        if PASS in statuses and statuses <= {PASS, "skipped"}:
            found.add(test)
    return found


@dataclass(frozen=True, kw_only=True)
class RegressionEvent:
    """A line of a regression's life."""

    at: datetime
    old: str
    new: str
    actor: str
    reason: str
    flight: int | None = None


@dataclass(frozen=True, kw_only=True)
class FirstSeen:
    """Where a message appeared first, on any branch, and how often since."""

    signature: str
    flight: int
    branch: str
    job: str
    at: datetime
    last_flight: int
    count: int


@dataclass(frozen=True, kw_only=True)
class ToldRegression:
    """A regression with all that is known of it, for people."""

    regression: Regression
    events: tuple[RegressionEvent, ...] = ()
    first_seen: FirstSeen | None = None
    issues: tuple[KnownIssue, ...] = field(default=())
