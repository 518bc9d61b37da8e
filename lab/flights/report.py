"""What a flight's report says, as values: how it went, what was compared, since when, and whose work it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from lab.flights.standing import Standing
from lab.flights.verdict import Finding, Outcome, Section


@dataclass(frozen=True, kw_only=True)
class Push:
    """What became of the branch's output: `pushed`, or not, and what git or the gate said about it."""

    pushed: bool
    said: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TreeLog:
    """What changed in a tree, as `git log` tells it; `lines` is empty when there are too many, `length` how many."""

    tree: str
    lines: tuple[str, ...]
    length: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says. Names, subjects and reasons are untrusted text; whoever renders it cleans them.

    `versions_this` and `versions_that` are revisions by tree: what was tested, and the baseline. `push` is None when
    the flight was not to move anything. `url` is where the lab's pages are (empty: nowhere).
    """

    flight: int
    branch: str
    intended: str
    blessing: str
    outcome: Outcome
    at: datetime
    jobs: tuple[tuple[str, str], ...] = ()
    """(name, status)"""
    failures: tuple[Finding, ...] = ()
    versions_this: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    versions_that: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    standing: Standing = field(default_factory=Standing)
    people: tuple[str, ...] = ()
    """`Name <address>`"""
    logs: tuple[TreeLog, ...] = ()
    push: Push | None = None
    baseline: bool = False
    """it tested the baseline itself, to have something to compare with"""
    url: str = ""

    def section_of(self, failure: Finding) -> Section:
        """Where the report has a failure; of a flight that nobody has judged all are in one section."""
        return Section.UNJUDGED if self.outcome is Outcome.UNJUDGED else failure.section

    def of(self, section: Section) -> tuple[Finding, ...]:
        """The failures of a section."""
        return tuple(one for one in self.failures if self.section_of(one) is section)


_WHOLE: Final = ("pass", "fail")
_BEFORE: Final[Mapping[Outcome, str]] = {
    Outcome.PERFECT: "",
    Outcome.TOLERABLE: "tolerable ",
    Outcome.REGRESSIONS: "regressions - ",
    Outcome.FAILURES: "",
    Outcome.UNJUDGED: "",
}


def in_a_word(report: Report) -> str:
    """The end of the subject: what was decided, how the jobs went, and whether it was pushed.

    The rules are those of OSSTest's README.email: `tolerable` or `regressions - `; then `all pass`, `FAIL`, `ALL FAIL`,
    or `trouble: ` with all statuses as soon as there is one that is neither pass nor fail. Jobs that
    were blocked are not mentioned beside such as passed and failed (which that file does not say, but the mails do).
    """
    statuses = sorted({status for _, status in report.jobs})
    if {"pass", "fail"} <= set(statuses):
        statuses = [status for status in statuses if status != "blocked"]
    if any(status not in _WHOLE for status in statuses):
        jobs = f"trouble: {'/'.join(statuses)}"
    elif "fail" in statuses:
        jobs = "FAIL" if "pass" in statuses else "ALL FAIL"
    else:
        jobs = "all pass"
    pushed = " - PUSHED" if report.push is not None and report.push.pushed else ""
    return f"{_BEFORE[report.outcome]}{jobs}{pushed}"


def subject(report: Report) -> str:
    """The subject line: `[xen-unstable test] 12: regressions - FAIL`."""
    kind = "baseline test" if report.baseline else "test"
    return f"[{report.branch} {kind}] {report.flight}: {in_a_word(report)}"
