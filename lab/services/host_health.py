"""What people decide about a host's health: quarantine it, take it out of use, bring it back."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts
from lab.errors import ConfigError
from lab.hosts.leases import check_line, check_person
from lab.hosts.model import Health
from lab.services.judge_host import change_health


def quarantine_host(session: Session, lab: Lab, name: str, *, why: str, actor: str) -> None:
    """Nothing new runs on the host until a person returns it; what runs goes on."""
    _change(session, lab, name, Health.QUARANTINED, why=why, actor=actor)


def drain_host(session: Session, lab: Lab, name: str, *, why: str, actor: str) -> None:
    """Take the host out of use for maintenance: what runs is finished, nothing new begins, no rule brings it back."""
    _change(session, lab, name, Health.MAINTENANCE, why=why, actor=actor)


def return_host(session: Session, lab: Lab, name: str, *, why: str, actor: str, at_once: bool = False) -> None:
    """Bring a host back: by way of burn-in, which checks it first, or `at_once`."""
    health = hosts.load_host(session, name).host.health
    if health is Health.GOOD:
        raise ConfigError(f"{name} is good already", hint="see `lab host list`")
    if health is Health.BURN_IN and not at_once:
        raise ConfigError(f"{name} is in burn-in already", hint="with --at-once it is in use again without its checks")
    why = why.strip() or ("in use again" if at_once else "to be checked")
    _change(session, lab, name, Health.GOOD if at_once else Health.BURN_IN, why=why, actor=actor)


def _change(session: Session, lab: Lab, name: str, new: Health, *, why: str, actor: str) -> None:
    actor, why = check_person(actor), check_line("reason", why)
    health = hosts.load_host(session, name).host.health
    if health is new:
        raise ConfigError(f"{name} is {new.value} already", hint=f"`lab host show {name}` says since when and why")
    change_health(session, lab, name, new, reason=why, actor=actor)
