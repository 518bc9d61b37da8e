"""Release a lease: its holder gives the host back, or an operator takes it; a booked one is cancelled."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts, leases
from lab.errors import ConfigError, NotFoundError
from lab.hosts.leases import LeaseState, Outcome, PersonLease, check_line, check_person, ending, stamp
from lab.services.expire import end_lease


def find_lease(session: Session, target: str) -> PersonLease:
    """The lease that `target` names: a host that a person has (or alone has booked), or the number of a lease."""
    names = {host.name for host in hosts.present_hosts(session)}
    going = leases.going_leases(session)
    on_host = [lease for lease in going if lease.host == target]
    active = [lease for lease in on_host if lease.state is LeaseState.ACTIVE]
    if active or len(on_host) == 1:
        return (active or on_host)[0]
    if on_host:
        numbers = ", ".join(f"{lease.id} ({lease.holder}, {stamp(lease.begins or lease.created)})" for lease in on_host)
        raise ConfigError(f"{target} is booked {len(on_host)} times: {numbers}", hint="name the lease by its number")
    if target in names:
        hold = leases.holders(session, [target]).get(target)
        if hold is not None:
            raise ConfigError(f"{target} is held by job {hold.holder}, by no person", hint="`lab flight abort` ends it")
        raise NotFoundError(f"nobody has leased {target}", hint="see `lab lease list`")
    if target.isascii() and target.isdecimal() and len(target) < 12:
        return leases.load_lease(session, int(target))
    raise NotFoundError(f"there is neither a host nor a lease {target!r}", hint="see `lab lease list`")


def check_may(lease: PersonLease, actor: str, *, force: bool) -> None:
    """Raise `ConfigError` unless `actor` may change `lease`: its holder, or who takes the responsibility."""
    check_person(actor)
    if lease.state is LeaseState.ENDED:
        raise ConfigError(f"{lease.name} has ended: {ending(lease)}", hint="see `lab lease list`")
    if lease.holder != actor and not force:
        raise ConfigError(
            f"{lease.name} is {lease.holder}'s, not {actor}'s", hint=f"ask {lease.holder}, or use --force and say why"
        )


def release_lease(
    session: Session, lab: Lab, lease: PersonLease, *, actor: str, force: bool = False, why: str = ""
) -> Outcome:
    """End a lease before its time; the host is powered off and made clean before anybody else gets it.

    Raises `ConfigError` when it has ended or is another's (unless by `force`, with a reason).
    """
    check_may(lease, actor, force=force)
    why = check_line("reason", why, empty=lease.holder == actor)
    outcome = Outcome.RELEASED if lease.state is LeaseState.ACTIVE else Outcome.CANCELLED
    if not end_lease(session, lab, lease, outcome, actor=actor, detail=why):
        raise ConfigError(f"{lease.name} was changed by somebody else at this moment", hint="look at it, and try again")
    return outcome
