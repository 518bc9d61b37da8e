"""How far our verdicts agree with those that OSSTest published about the same flights. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from lab.flights.osstest_report import ReportedFailure, ReportedFlight, Reports
from lab.flights.regression import judge
from lab.flights.verdict import Finding, Kind, Verdict

_HARMLESS: Final = frozenset(
    {Kind.NEVER_PASS, Kind.LIKE, Kind.FAILED_IN, Kind.STATUS_IN, Kind.BLOCKED_IN, Kind.STARVED_IN,
     Kind.BASELINE_UNTESTED, Kind.NA}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A published failure beside ours. `decided`: the reports tell enough. `agrees`: the same class, blocking alike."""

    report: ReportedFlight
    published: ReportedFailure
    ours: Finding | None
    case: bool
    decided: bool
    agrees: bool
    why: str = ""


def compare_all(reports: Reports) -> list[Compared]:
    """Every published failure, in the reports' order. A *case* names a flight that is itself among the reports."""
    found = []
    for report in reports.flights.values():
        ours = judge(reports.run(report), reports.past(report), refer_to=reports.refer_to(report))
        found += [_compare(reports, report, one, ours) for one in report.failures]
    return found


def _compare(reports: Reports, report: ReportedFlight, one: ReportedFailure, verdict: Verdict) -> Compared:
    case = one.ref_flight in reports.flights or one.seen_in in reports.flights
    seen_in = None if one.seen_in == report.flight else one.seen_in
    ours = next((mine for mine in verdict.findings if mine.signature == one.test and mine.seen_in == seen_in), None)
    if case:
        decided = _decided(reports, report, one)
        agrees = ours is not None and ours.kind is one.kind and _blocks_alike(one, ours)
    else:
        decided, agrees = False, ours is None or not _contradicted(one, ours)
    return Compared(
        report=report, published=one, ours=ours, case=case, decided=decided, agrees=agrees,
        why="" if agrees else _difference(ours),
    )  # fmt: skip


def _decided(reports: Reports, report: ReportedFlight, one: ReportedFailure) -> bool:
    """Whether the reports say what came of the test in the flight that the published note names."""
    if one.ref_flight is None:
        return True
    return reports.status(one.ref_flight, one.test, one.stepno, report.date) is not None


def _blocks_alike(one: ReportedFailure, ours: Finding) -> bool:
    """Allow-lists are no part of the reports: what they let off is a regression all the same."""
    return one.section == "allowable" or ours.blocks == (one.section == "blocking")


def _contradicted(one: ReportedFailure, ours: Finding) -> bool:
    """Whether ours cannot be true together with what was published, although the reports do not tell all."""
    match one.kind:
        case Kind.NA | Kind.JOB_STATUS:
            return ours.kind is not one.kind
        case Kind.REGRESSION | Kind.HEISENBUG:
            # where it passed is not in the file: we cannot have found a failure there, nor that it never passed
            return ours.kind in (Kind.NEVER_PASS, Kind.LIKE, Kind.NA)
        case _:
            return ours.kind not in _HARMLESS


def _difference(ours: Finding | None) -> str:
    if ours is None:
        return "we do not report it"
    told = f"{ours.kind.value} ({ours.note or 'no note'})"
    return f"we say {told}: {'; '.join(ours.reasons)}"


def summary(reports: Reports, compared: list[Compared]) -> dict[str, Any]:
    """The agreement as plain data."""
    cases = [one for one in compared if one.case]
    decided = [one for one in cases if one.decided]
    rest = [one for one in compared if not one.case]
    classes = sorted({one.published.kind.value for one in cases})
    return {
        "flights": len(reports.flights),
        "cases": len(cases),
        "agree": sum(one.agrees for one in decided),
        "by_class": {name: _class(name, decided) for name in classes},
        "undecidable": len(cases) - len(decided),
        "disagreements": [_told(one) for one in decided if not one.agrees],
        "same_flight_named": sum(one.agrees and one.ours is not None and _same_flight(one) for one in decided),
        "others": {
            "failures": len(rest),
            "by_class": dict(sorted(Counter(one.published.kind.value for one in rest).items())),
            "contradicted": [_told(one) for one in rest if not one.agrees],
        },
    }


def _class(name: str, decided: list[Compared]) -> dict[str, int]:
    mine = [one for one in decided if one.published.kind.value == name]
    return {"cases": len(mine), "agree": sum(one.agrees for one in mine)}


def _same_flight(one: Compared) -> bool:
    return one.ours is not None and one.ours.ref_flight == one.published.ref_flight


def _told(one: Compared) -> dict[str, Any]:
    return {
        "flight": one.report.flight,
        "branch": one.report.branch,
        "job": one.published.job,
        "testid": one.published.testid,
        "seen_in": one.published.seen_in,
        "published": {"kind": one.published.kind.value, "section": one.published.section, "note": one.published.note},
        "ours": one.ours.as_json() if one.ours else None,
        "why": one.why,
    }
