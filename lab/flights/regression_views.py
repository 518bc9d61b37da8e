"""Regressions as plain data for JSON: the same words on the command line and in the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lab.flights.regression_life import FirstSeen, KnownIssue, Regression, ToldRegression


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def regression_view(one: Regression) -> dict[str, Any]:
    """A regression in a line."""
    return {
        "regression": one.id,
        "branch": one.branch,
        "job": one.job,
        "testid": one.testid,
        "state": one.life.value,
        "message": one.sample,
        "signature": one.signature,
        "first_flight": one.first_flight,
        "last_flight": one.last_flight,
        "since": _time(one.since),
        "changed": _time(one.changed),
        "owner": one.owner or None,
        "bisection": one.bisection,
        "culprit": one.culprit or None,
    }


def issue_view(one: KnownIssue, now: datetime) -> dict[str, Any]:
    """Something people know of."""
    return {
        "issue": one.id,
        "job": one.job,
        "testid": one.testid,
        "text": one.text or None,
        "owner": one.owner,
        "reason": one.reason,
        "url": one.url or None,
        "actor": one.actor,
        "created": _time(one.created),
        "expires": _time(one.expires),
        "in_force": one.in_force(now),
    }


def first_seen_view(one: FirstSeen | None) -> dict[str, Any] | None:
    """Where a message appeared first."""
    if one is None:
        return None
    return {
        "flight": one.flight, "branch": one.branch, "job": one.job, "at": _time(one.at), "last_flight": one.last_flight,
        "count": one.count,
    }  # fmt: skip


def told_view(told: ToldRegression, now: datetime) -> dict[str, Any]:
    """A regression with its whole life."""
    return {
        **regression_view(told.regression),
        "events": [
            {"at": _time(one.at), "from": one.old or None, "to": one.new, "actor": one.actor, "reason": one.reason,
             "flight": one.flight}
            for one in told.events
        ],
        "first_seen": first_seen_view(told.first_seen),
        "known_issues": [issue_view(one, now) for one in told.issues],
    }  # fmt: skip
