"""Expire leases: end those whose time is over, and have their hosts powered off."""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import leases
from lab.db import session as db
from lab.hosts.leases import LeaseState, Outcome, PersonLease, how_ended


def expire_leases(session: Session, lab: Lab) -> int:
    """End every lease whose time is over, whose notice has run out or whose holder fell silent; returns how many."""
    count = 0
    for lease in leases.going_leases(session):
        outcome = how_ended(lease, lab.clock())
        if outcome is not None:
            detail = f"for {lease.notice_for}" if outcome is Outcome.PREEMPTED else ""
            count += end_lease(session, lab, lease, outcome, actor="lab", detail=detail)
    return count


def end_lease(
    session: Session, lab: Lab, lease: PersonLease, outcome: Outcome, *, actor: str, detail: str = ""
) -> bool:
    """End a lease however it ends; its host is powered off before anybody else gets it. False: it had ended already."""
    now = lab.clock()
    if not leases.end_lease(session, lease, outcome, now=now):
        return False
    leases.add_change(session, lease.id, outcome.value, actor=actor, now=now, host=lease.host, detail=detail)
    if lease.state is LeaseState.ACTIVE and lease.host is not None:
        db.after_commit(session, partial(lab.dispatch.clean_host, lease.host))
    db.after_commit(session, lab.bell.ring)
    return True
