"""A report as plain data for JSON: the same words on the command line and in the API."""

from __future__ import annotations

from typing import Any

from lab.flights.report import Report, subject
from lab.flights.report_text import MOST_LINES, one_line
from lab.flights.standing import Since
from lab.flights.verdict import HEADLINES, Section


def report_view(report: Report) -> dict[str, Any]:
    """Everything the mail says; failures by section."""
    return {
        "flight": report.flight,
        "branch": report.branch,
        "intended": report.intended,
        "blessing": report.blessing,
        "at": report.at.isoformat(timespec="seconds"),
        "subject": one_line(subject(report)),
        "outcome": report.outcome.value,
        "headline": HEADLINES[report.outcome],
        "baseline": report.baseline,
        "versions_this": dict(report.versions_this),
        "versions_that": dict(report.versions_that),
        "basis": _since(report.standing.basis),
        "failing_since": _since(report.standing.failing),
        "testing_same_since": _since(report.standing.testing),
        "failures": [
            {**one.as_json(), "section": section.name.lower()} for section in Section for one in report.of(section)
        ],
        "jobs": dict(report.jobs),
        "push": {"pushed": report.push.pushed, "said": list(report.push.said)} if report.push else None,
        "people": list(report.people) if len(report.people) < MOST_LINES else None,
        "people_count": len(report.people),
        "log": [{"tree": log.tree, "length": log.length, "lines": list(log.lines)} for log in report.logs],
    }


def _since(since: Since | None) -> dict[str, Any] | None:
    if since is None:
        return None
    return {
        "flight": since.flight,
        "started": since.started.isoformat(timespec="seconds"),
        "days": since.days,
        "attempts": since.attempts,
    }
