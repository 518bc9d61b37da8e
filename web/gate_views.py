"""A run of a gate laid out: its findings in the order of the mail, and what would have let it pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lab.flights.board import GateRun, GateState

STATE_WORDS: Final[Mapping[GateState, str]] = {
    GateState.OPEN: "open",
    GateState.HELD: "held",
    GateState.STOPPED: "held by hand",
    GateState.TESTING: "testing",
    GateState.BROKEN: "cannot decide",
    GateState.UNTESTED: "untested",
}

_INTERMITTENT: Final = frozenset({"heisenbug"})
_ALLOWED: Final = frozenset({"allowable", "waived"})


@dataclass(frozen=True, kw_only=True)
class ShownFinding:
    """A test that did not pass, as the gate saw it; `flights` are those it was compared with, and as what."""

    job: str
    testid: str
    stepno: int | None
    status: str
    kind: str
    note: str
    blocks: bool
    reasons: tuple[str, ...]
    flights: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Findings of one sort."""

    title: str
    sign: str
    findings: tuple[ShownFinding, ...]


def sections(run: GateRun) -> list[Section]:
    """The findings of a run: what blocks, what fails now and then, what is allowed, and the rest."""
    found = [_finding(one) for one in run.verdict.get("findings", ())]
    parts = (
        ("Blocking", "fail", [one for one in found if one.blocks]),
        ("Failing intermittently, not blocking", "skipped", [one for one in found if one.kind in _INTERMITTENT]),
        ("Regressions that are allowed", "skipped", [one for one in found if one.kind in _ALLOWED]),
        ("Not blocking", "pending", [one for one in found if one.kind not in _INTERMITTENT | _ALLOWED]),
    )
    seen: set[int] = set()
    shown = []
    for title, sign, findings in parts:
        own = [one for one in findings if id(one) not in seen]
        seen.update(id(one) for one in own)
        if own:
            shown.append(Section(title=title, sign=sign, findings=tuple(own)))
    return shown


def _finding(one: Mapping[str, Any]) -> ShownFinding:
    flights = [("compared with", one.get("ref_flight")), ("passed in", one.get("seen_in"))]
    return ShownFinding(
        job=str(one.get("job", "")),
        testid=str(one.get("testid", "")),
        stepno=one.get("stepno"),
        status=str(one.get("status", "")),
        kind=str(one.get("kind", "")),
        note=str(one.get("note", "")),
        blocks=bool(one.get("blocks")),
        reasons=tuple(str(reason) for reason in one.get("reasons", ())),
        flights=tuple((what, int(flight)) for what, flight in flights if flight is not None),
    )


def decision_sign(run: GateRun) -> str:
    """The sign of a job's status that feels like what a run of a gate decided."""
    if run.finished is None:
        return "running"
    return {"advance": "pass", "hold": "fail"}.get(run.decision, "broken")


def counterfactual(shown: Iterable[Section]) -> list[ShownFinding]:
    """What would have to be waived for the run to pass: exactly what blocks."""
    return [one for section in shown for one in section.findings if one.blocks]
