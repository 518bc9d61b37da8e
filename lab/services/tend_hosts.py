"""Tend hosts: what the lab has quarantined is tried again, and what stood idle is checked now and then."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import health, hosts
from lab.errors import ConfigError
from lab.flights.checks import BRANCH, check_specs
from lab.flights.status import Blessing
from lab.hosts.health import LAB, burn_in_after_s
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.services.construct import construct_flight
from lab.services.judge_host import change_health
from lab.services.settle import abort_flight

log = logging.getLogger(__name__)

BEHIND = 1
"""The priority of checks: jobs of people go first."""

AGAIN_S = 600.0
"""After it, checks are tried again that ended without saying anything of their host (no Xen to boot, say)."""


def tend_hosts(session: Session, lab: Lab) -> None:
    """Send hosts to burn-in whose time has come, have them checked, and check who stood idle for long."""
    tended = health.to_tend(session)
    for name, state in tended.items():
        if state is Health.QUARANTINED and _rested(session, lab, name):
            reason = "to be tried: it has rested long enough"
            change_health(session, lab, name, Health.BURN_IN, reason=reason, actor=LAB)
            tended[name] = Health.BURN_IN
    checked = _pending(session, lab)
    for name in sorted(name for name, state in tended.items() if state is Health.BURN_IN and name not in checked):
        if _may_check_again(session, lab, name):
            _check(session, lab, hosts.find_host(session, name), lab.health_rules.burn_in_checks)
    if lab.health_rules.check_every_s:
        _check_idle(session, lab, checked)


def _rested(session: Session, lab: Lab, name: str) -> bool:
    wait = burn_in_after_s(health.failed_burn_ins(session, name), lab.health_rules)
    change = hosts.newest_health_change(session, name)
    return change is not None and lab.clock() >= change.at + timedelta(seconds=wait)


def _check(session: Session, lab: Lab, host: Host, count: int) -> None:
    burn_in = host.health is Health.BURN_IN
    note = f"{'burn-in' if burn_in else 'check'} of {host.name}"
    try:
        with session.begin_nested():
            specs = check_specs(host.name, host.arch, count, burn_in=burn_in)
            construct_flight(
                session, lab, specs, branch=BRANCH, intended=Blessing.PLAY, submitter=LAB, note=note, priority=BEHIND
            )
    except ConfigError as error:
        log.warning("%s cannot be checked: %s", host.name, error)


def _pending(session: Session, lab: Lab) -> set[str]:
    """The hosts that are being checked or will be; checks of a host that is not to be had for them any more end."""
    pending = set()
    for name, asked in health.open_checks(session).items():
        host = hosts.find_host(session, name)
        for flight, need in sorted(asked.items()):
            if host.state is HostState.LEASED or (host.usable() and Requirement(need).matches(host)):
                pending.add(name)
            else:
                abort_flight(session, lab, flight, reason=f"{name} is {host.health.value}: {host.health_reason}")
    return pending


def _may_check_again(session: Session, lab: Lab, name: str) -> bool:
    """Whether a host in burn-in was not checked yet, or so long ago that what was in the way may be over."""
    change = hosts.newest_health_change(session, name)
    again = lab.clock() - timedelta(seconds=max(lab.health_rules.burn_in_after_s, AGAIN_S))
    return name not in health.latest_checks(session, max(again, change.at) if change else again)


def _check_idle(session: Session, lab: Lab, checked: Collection[str]) -> None:
    due = lab.clock() - timedelta(seconds=lab.health_rules.check_every_s)
    recent = health.used_since(session, due) | health.latest_checks(session, due).keys() | set(checked)
    for host in hosts.present_hosts(session):
        if host.state is HostState.FREE and host.health in (Health.GOOD, Health.SUSPECT) and host.name not in recent:
            _check(session, lab, host, 1)
