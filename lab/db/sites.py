"""Queries on sites: how the circuit breaker of each stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab.db.changes import mark
from lab.db.tables import SiteRow
from lab.hosts.breaker import CLOSED, Breaker, Circuit

MARK = "site"
"""The kind of mark that a site leaves when it gets work again, or no more."""


def _breaker(row: SiteRow) -> Breaker:
    return Breaker(
        state=Circuit(row.state),
        failures=row.failures,
        since=row.since.timestamp(),
        until=row.until.timestamp(),
        reason=row.reason,
    )


def find_breaker(session: Session, site: str) -> Breaker:
    """How a site stands; closed when nothing was ever written about it."""
    row = session.get(SiteRow, site)
    return _breaker(row) if row is not None else CLOSED


def list_breakers(session: Session) -> dict[str, Breaker]:
    """How the sites stand of which something was written, by name."""
    return {row.name: _breaker(row) for row in session.scalars(select(SiteRow).order_by(SiteRow.name))}


def shut_sites(session: Session) -> dict[str, Breaker]:
    """The sites that get no work now, by name."""
    return {name: breaker for name, breaker in list_breakers(session).items() if not breaker.lets_through}


def change_breaker(session: Session, site: str, change: Callable[[Breaker], Breaker]) -> tuple[Breaker, Breaker]:
    """Change how a site stands; returns what was and what is. Nobody else changes it between reading and writing."""
    row = session.get(SiteRow, site, with_for_update=True, populate_existing=True)
    before = _breaker(row) if row is not None else CLOSED
    after = change(before)
    if after == before:
        return before, after
    if row is None:
        row = SiteRow(name=site)
        session.add(row)
    row.state, row.failures, row.reason = after.state.value, after.failures, after.reason
    row.since, row.until = _moment(after.since), _moment(after.until)
    if after.lets_through != before.lets_through:
        mark(session, MARK)
    return before, after


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
