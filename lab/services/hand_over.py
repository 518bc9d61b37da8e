"""Hand a lease over: another person holds the host from now on, under a new token."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import leases
from lab.errors import ConfigError
from lab.hosts.leases import LeaseState, PersonLease, check_line, check_person
from lab.services.release import check_may


def hand_over(
    session: Session, lab: Lab, lease: PersonLease, *, to: str, actor: str, why: str = "", force: bool = False
) -> int:
    """Make `to` the holder of an active lease, until the same end; returns the new token. The old one is worth nothing.

    The host stays on. Raises `ConfigError` when the lease is not active, is another's, or is `to`'s already.
    """
    check_may(lease, actor, force=force)
    to, why = check_person(to), check_line("reason", why, empty=True)
    if lease.state is not LeaseState.ACTIVE:
        raise ConfigError(f"{lease.name} has not begun", hint="release it, and book the host for them")
    if to == lease.holder:
        raise ConfigError(f"{lease.host} is held by {to} already")
    now = lab.clock()
    fence = leases.change_holder(session, lease, to, now=now)
    if fence is None:
        raise ConfigError(f"{lease.name} was changed by somebody else at this moment", hint="look at it, and try again")
    detail = f"from {lease.holder} to {to}, token {fence}{f': {why}' if why else ''}"
    leases.add_change(session, lease.id, "handed over", actor=actor, now=now, host=lease.host, detail=detail)
    return fence
