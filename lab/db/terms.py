"""Terms: whoever leads has a number that only grows, and every decision is made under it.

The lock (`lab.db.leadership`) sees to it that one process leads; but who has lost it, with its connection or by being
stopped for a while, does not know at once. Under an old term nothing is written: neither is a job started twice, nor do
marks of changes go that the new leader has to read.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab.db.session import upsert
from lab.db.tables import TermRow

_ONLY = 1


class DeposedError(RuntimeError):
    """Somebody else leads by now: this transaction must not be written."""


def begin_term(session: Session) -> int:
    """Begin a term; returns its number. Waits for the decision that is being made under the old one."""
    first = upsert(session, TermRow).values(id=_ONLY, term=1)
    session.execute(first.on_conflict_do_update(index_elements=[TermRow.id], set_={"term": TermRow.term + 1}))
    return session.scalars(select(TermRow.term).where(TermRow.id == _ONLY)).one()


def check_term(session: Session, term: int) -> None:
    """Raise `DeposedError` unless this is the term; nobody begins another one before this transaction has ended."""
    now = session.scalars(select(TermRow.term).where(TermRow.id == _ONLY).with_for_update(read=True)).one_or_none()
    if now != term:
        raise DeposedError(f"this is term {now}, no longer {term}")
