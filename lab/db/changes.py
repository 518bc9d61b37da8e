"""Marks of changed rows: how the leader's memory follows the database without reading the queue anew.

Triggers on the watched tables write a mark in the transaction of the change, so that no writer can forget it. The
leader takes marks by deleting them, and then reads the rows they name. A mark says *look again*, not what happened;
so neither the order in which transactions commit nor a mark taken twice matters, and a ring that was lost leaves its
marks behind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lab.db.tables import ChangeRow
from lab.flights.model import JobKey


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What has to be read again. `more`: there are further marks."""

    jobs: Collection[JobKey] = field(default_factory=frozenset)
    hosts: Collection[str] = field(default_factory=frozenset)
    others: Collection[str] = field(default_factory=frozenset)
    """kinds of rows that are few, and always read all together"""
    more: bool = False


def take_changes(session: Session, limit: int) -> Changes:
    """Take the oldest marks, at most `limit`. Read their rows in this same transaction, or keep the marks."""
    oldest = select(ChangeRow.id).order_by(ChangeRow.id).limit(limit)
    taken = session.execute(
        delete(ChangeRow).where(ChangeRow.id.in_(oldest)).returning(ChangeRow.kind, ChangeRow.flight, ChangeRow.name)
    ).all()
    return Changes(
        jobs=frozenset((flight, name) for kind, flight, name in taken if kind == "job" and flight is not None),
        hosts=frozenset(name for kind, _flight, name in taken if kind == "host"),
        others=frozenset(kind for kind, _flight, _name in taken) - {"job", "host"},
        more=len(taken) == limit,
    )


def drop_changes(session: Session) -> None:
    """Forget all marks: the caller is about to read everything."""
    session.execute(delete(ChangeRow))


def mark(session: Session, kind: str) -> None:
    """Leave a mark by hand, for a table without triggers."""
    session.add(ChangeRow(kind=kind, flight=None, name=""))
