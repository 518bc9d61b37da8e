"""The push gate of a branch: whether what was tested may pass, and exactly what keeps it out. Pure.

The rules are OSSTest's (`cr-daily-branch`): what is tolerable passes; a person's hold vetoes everything, and a person's
force lets a revision through whatever the tests say. What a branch demands of coverage comes on top.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from lab.flights.plain_text import clean
from lab.flights.regression import Waiver, let_off
from lab.flights.verdict import Kind, Verdict, outcome_of

ADVANCE: Final = "advance"
HOLD: Final = "hold"


class GateStep(enum.Enum):
    """Where a run of a gate stands; the last two are final."""

    FETCHING = "fetching"
    BASELINE = "baseline"
    TESTING = "testing"
    RETESTING = "retesting"
    PUSHING = "pushing"
    DONE = "done"
    #: it could not decide, or could not push; nothing was moved
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self in (GateStep.DONE, GateStep.FAILED)


@dataclass(frozen=True, kw_only=True)
class Override:
    """What a person decided: `hold` the gate, `waive` a test (at one `revision`, or at any), `force` a revision."""

    id: int
    kind: str
    actor: str
    reason: str
    job: str = ""
    testid: str = ""
    revision: str = ""
    expires: datetime | None = None

    def concerns(self, revision: str) -> bool:
        """Whether it is about a revision (one that names none is about all)."""
        return not self.revision or self.revision == revision

    def __str__(self) -> str:
        return clean(f"{self.actor}: {self.reason}")


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """Whether a revision passes, and why in a line."""

    advance: bool
    reason: str

    @property
    def word(self) -> str:
        """As it is kept."""
        return ADVANCE if self.advance else HOLD


def waived(overrides: Iterable[Override], revision: str) -> frozenset[Waiver]:
    """The tests that people have waived at this revision."""
    return frozenset(Waiver(one.job, one.testid) for one in overrides if one.kind == "waive" and one.concerns(revision))


def decide(verdict: Verdict, unmet: Sequence[str], overrides: Iterable[Override], revision: str) -> GateDecision:
    """Whether what was tested may pass. `unmet` are the branch's demands on coverage that are not met.

    `overrides` are those in force; waivers have done their work in the verdict already.
    """
    mine = [one for one in overrides if one.concerns(revision)]
    if holds := [one for one in mine if one.kind == "hold"]:
        return GateDecision(advance=False, reason=f"held by {holds[0]}")
    if forces := [one for one in mine if one.kind == "force" and one.revision]:
        return GateDecision(advance=True, reason=f"forced by {forces[0]}")
    against = [*verdict.missing, *unmet]
    if verdict.pushable and not against:
        return GateDecision(advance=True, reason=verdict.headline)
    blockers = verdict.blockers
    if blockers:
        more = f" and {len(blockers) - 3} more" if len(blockers) > 3 else ""
        told = "; ".join(f"{one.job} {one.testid} {one.note or one.status}" for one in blockers[:3])
        against.insert(0, f"{told}{more}")
    return GateDecision(advance=False, reason=clean("; ".join(against) or verdict.headline))


def with_waivers(verdict: Verdict, waivers: Collection[Waiver]) -> Verdict:
    """A verdict that was given earlier, with what has been waived since."""
    findings = tuple(let_off(one, (), waivers) for one in verdict.findings)
    return replace(verdict, findings=findings, outcome=outcome_of(findings))


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What would open a gate: `waive` is the smallest set of tests whose waiving would, if nothing is in `besides`.

    `besides` are what no waiver changes: a person's hold, demands on coverage, a baseline that was never tested.
    """

    decision: GateDecision
    waive: tuple[Waiver, ...] = ()
    besides: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "decision": self.decision.word,
            "reason": self.decision.reason,
            "waive": [{"job": one.job, "testid": one.testid} for one in self.waive],
            "besides": list(self.besides),
        }


def explain(verdict: Verdict, unmet: Sequence[str], overrides: Iterable[Override], revision: str) -> Explanation:
    """What keeps a gate shut.

    Every blocker blocks by itself and none becomes one because another is waived, so the smallest set is that of all
    blockers. What has not ended cannot be waived.
    """
    overrides = list(overrides)
    decision = decide(verdict, unmet, overrides, revision)
    if decision.advance:
        return Explanation(decision=decision)
    waivable = dict.fromkeys(Waiver(*one.signature) for one in verdict.blockers if one.kind is not Kind.UNFINISHED)
    unfinished = [f"{one.job} has not ended" for one in verdict.blockers if one.kind is Kind.UNFINISHED]
    holds = [f"held by {one}" for one in overrides if one.kind == "hold" and one.concerns(revision)]
    return Explanation(
        decision=decision, waive=tuple(waivable), besides=(*holds, *verdict.missing, *unmet, *unfinished)
    )
