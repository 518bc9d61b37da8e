"""What a judge says of a flight, as values: every step that did not pass, whether it blocks, and why.

`lab.flights.regression` makes them; mails, pages and gates read them. The words are OSSTest's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

JOB_STATUS: Final = "<job status>"
"""The testid of a failure that is of a job and of none of its steps."""

NONE_EXECUTED: Final = "<none executed>"
"""The testid of a job that did not pass and of which no step ran."""


class Outcome(enum.Enum):
    """What was decided about a flight."""

    PERFECT = "perfect"
    TOLERABLE = "tolerable"
    REGRESSIONS = "regressions"
    FAILURES = "failures"
    #: nobody has compared it with a baseline
    UNJUDGED = "unjudged"


class Section(enum.Enum):
    """Which part of a report a failure belongs to; the values are the words of `X-Osstest-Failures`."""

    BLOCKING = "regression"
    INTERMITTENT = "heisenbug"
    ALLOWABLE = "allowable"
    NONBLOCKING = "nonblocking"
    #: of a flight that nobody has judged
    UNJUDGED = "fail"


class Kind(enum.Enum):
    """Why a failure does or does not block."""

    #: passed with the baseline
    REGRESSION = "regression"
    #: had the same status with the baseline
    LIKE = "like"
    #: failed with the baseline, and has another status now
    FAILED_IN = "failed_in"
    #: neither passed nor failed with the baseline
    STATUS_IN = "status_in"
    #: did not come to run with the baseline
    BLOCKED_IN = "blocked_in"
    #: was given up with the baseline
    STARVED_IN = "starved_in"
    #: the baseline was never tested
    BASELINE_UNTESTED = "baseline_untested"
    #: has not passed in any flight that counts
    NEVER_PASS = "never_pass"  # noqa: S105 - not a password
    #: could not be run; whatever kept it from running is judged in its place
    NA = "na"
    #: the same versions have passed it elsewhere
    HEISENBUG = "heisenbug"
    #: a list of the lab's says that this test does not count
    ALLOWABLE = "allowable"
    #: a person said that it does not count this time
    WAIVED = "waived"
    #: the lab failed, or a step ended in no known way
    JOB_STATUS = "job_status"
    #: has not ended
    UNFINISHED = "unfinished"


_SECTIONS: Final[Mapping[Kind, Section]] = {
    Kind.HEISENBUG: Section.INTERMITTENT,
    Kind.ALLOWABLE: Section.ALLOWABLE,
    Kind.WAIVED: Section.ALLOWABLE,
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A step that did not pass (or a job: `JOB_STATUS`, `NONE_EXECUTED`), and what follows from it.

    `note` is the justification in OSSTest's words ("REGR. vs. 12", "like 12", "never pass", "pass in 13").
    `ref_flight` is the flight it names. `seen_in` is set when the failure was not in the judged flight itself but in
    that one, of the same versions. `reasons` say more, a line each: which flights and runs, and what would change it.
    """

    job: str
    testid: str
    status: str
    kind: Kind
    blocks: bool
    note: str
    stepno: int | None = None
    ref_flight: int | None = None
    seen_in: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def section(self) -> Section:
        """Where a report has it."""
        return Section.BLOCKING if self.blocks else _SECTIONS.get(self.kind, Section.NONBLOCKING)

    @property
    def signature(self) -> tuple[str, str]:
        """(job, testid): what a waiver names."""
        return self.job, self.testid

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "section": self.section.name.lower(),
            "job": self.job,
            "stepno": self.stepno,
            "testid": self.testid,
            "status": self.status,
            "kind": self.kind.value,
            "blocks": self.blocks,
            "note": self.note,
            "ref_flight": self.ref_flight,
            "seen_in": self.seen_in,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided about a flight. `missing` are demands that no failure stands for (coverage), as sentences."""

    flight: int
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    policy: str = ""

    @property
    def headline(self) -> str:
        """The outcome in OSSTest's words."""
        return HEADLINES[self.outcome]

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """The findings that keep a gate shut."""
        return tuple(one for one in self.findings if one.blocks)

    @property
    def pushable(self) -> bool:
        """Whether what was tested may move on."""
        return self.outcome in (Outcome.PERFECT, Outcome.TOLERABLE) and not self.blockers and not self.missing

    def of(self, section: Section) -> tuple[Finding, ...]:
        """The findings of a section, in order."""
        return tuple(one for one in self.findings if one.section is section)

    def as_json(self) -> dict[str, Any]:
        """Plain data; `verdict_of` makes a verdict of it again."""
        return {
            "flight": self.flight,
            "outcome": self.outcome.value,
            "headline": self.headline,
            "pushable": self.pushable,
            "policy": self.policy,
            "missing": list(self.missing),
            "findings": [one.as_json() for one in self.findings],
        }


HEADLINES: Final[Mapping[Outcome, str]] = {
    Outcome.PERFECT: "Perfect :-)",
    Outcome.TOLERABLE: "Failures :-/ but no regressions.",
    Outcome.REGRESSIONS: "Regressions :-(",
    Outcome.FAILURES: "Failures and problems with tests :-(",
    Outcome.UNJUDGED: "Not compared with a baseline.",
}


def outcome_of(findings: tuple[Finding, ...]) -> Outcome:
    """What the findings amount to (`sg-report-flight`): none: perfect; a blocking *fail* that passed with the baseline:
    regressions (what was *broken* is the lab's own doing); no blocker: tolerable; else failures.
    """
    if not findings:
        return Outcome.PERFECT
    blockers = [one for one in findings if one.blocks]
    if any(one.kind is Kind.REGRESSION and one.status != "broken" for one in blockers):
        return Outcome.REGRESSIONS
    return Outcome.FAILURES if blockers else Outcome.TOLERABLE


def verdict_of(data: Mapping[str, Any]) -> Verdict:
    """The verdict that `Verdict.as_json` wrote."""
    return Verdict(
        flight=data["flight"],
        outcome=Outcome(data["outcome"]),
        policy=data.get("policy", ""),
        missing=tuple(data.get("missing", ())),
        findings=tuple(
            Finding(
                job=one["job"],
                testid=one["testid"],
                status=one["status"],
                kind=Kind(one["kind"]),
                blocks=one["blocks"],
                note=one["note"],
                stepno=one["stepno"],
                ref_flight=one["ref_flight"],
                seen_in=one["seen_in"],
                reasons=tuple(one["reasons"]),
            )
            for one in data["findings"]
        ),
    )
