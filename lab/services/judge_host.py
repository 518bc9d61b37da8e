"""Judge a host: what has ended on it may change its health."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, health, hosts
from lab.db import session as db
from lab.db.tables import AttemptRow
from lab.flights.status import JobStatus
from lab.hosts.durations import host_class
from lab.hosts.hardware import Fault, new_faults
from lab.hosts.health import LAB, Tally, Verdict, hardware_failed, judge, power_failed
from lab.hosts.model import Health
from lab.services.give_back import give_back

TALLIED = timedelta(days=30)
"""What is older says nothing of a host."""

log = logging.getLogger(__name__)

OUT_OF_USE = (Health.QUARANTINED, Health.MAINTENANCE, Health.RETIRED)


def judge_hosts(session: Session, lab: Lab, row: AttemptRow, status: JobStatus, *, blames: str | None) -> None:
    """Judge the hosts of an attempt that has ended, and those on which its job broke before.

    An attempt that says nothing of any host (aborted, its worker fell silent) changes nothing.
    """
    if status not in (JobStatus.PASS, JobStatus.FAIL, JobStatus.BROKEN) or (
        status is JobStatus.BROKEN and blames is None
    ):
        return
    session.flush()
    names = {blames} if blames else {held.host for held in row.hosts}
    healths = health.health_of(session, names)
    doubted = {name for name in names if healths.get(name) is not Health.GOOD or name == blames}
    if blames is None and row.number > 1:
        doubted |= health.blamed_before(session, row.flight, row.job)  # it works elsewhere
    for name in sorted(doubted):
        judge_host(session, lab, name)


def judge_host(session: Session, lab: Lab, name: str) -> None:
    """Change the health of a host if a rule says so."""
    host = hosts.find_host(session, name)
    if host.health not in (Health.GOOD, Health.SUSPECT, Health.BURN_IN):
        return
    since = health.last_good(session, name)
    own, equals = _tallies(session, lab, name, since)
    seen = health.seen_on(session, name, since)
    verdict = judge(host.health, seen, own, equals, lab.health_rules, by_lab=health.changed_by_lab(session, name))
    if verdict is not None and verdict.health is not host.health:
        _apply(session, lab, name, verdict)


def note_power_failure(session: Session, lab: Lab, name: str, reason: str, *, during: str = "") -> None:
    """A power command has failed on a host, in the job `during` (flight.job) if it was one that gave it."""
    host = hosts.find_host(session, name)
    verdict = power_failed(host.health, reason, during=during, by_lab=health.changed_by_lab(session, name))
    if verdict is not None:
        _apply(session, lab, name, verdict)
    else:
        log.warning("%s (%s): %s", name, host.health.value, reason)


def note_hardware(session: Session, lab: Lab, name: str, faults: Sequence[Fault], *, during: str = "") -> None:
    """A host's hardware tells of faults. What was evidence for an earlier change of health is not held against it."""
    told: set[str] = set()
    for change in hosts.health_history(session, name):
        if isinstance(lines := change.evidence.get("hardware"), list):
            told.update(str(line).partition(": ")[2] for line in lines)
    fresh = new_faults(faults, told)
    host = hosts.find_host(session, name)
    by_lab = health.changed_by_lab(session, name)
    verdict = hardware_failed(host.health, fresh, during=during, by_lab=by_lab)
    if verdict is not None:
        _apply(session, lab, name, verdict)


def _apply(session: Session, lab: Lab, name: str, verdict: Verdict) -> None:
    change_health(session, lab, name, verdict.health, reason=verdict.reason, actor=LAB, evidence=verdict.evidence)


def _tallies(session: Session, lab: Lab, name: str, since: datetime | None) -> tuple[Tally, Tally]:
    everyone = {host.name: host_class(host) for host in hosts.present_hosts(session)}
    alike = [other for other, kind in everyone.items() if kind == everyone.get(name)]
    begin = lab.clock() - TALLIED
    own = health.tallies(session, [name], max(begin, since) if since else begin).get(name, Tally())
    others = health.tallies(session, [other for other in alike if other != name], begin).values()
    equals = Tally(jobs=sum(one.jobs for one in others), broken=sum(one.broken for one in others))
    return own, equals


def change_health(
    session: Session,
    lab: Lab,
    name: str,
    new: Health,
    *,
    reason: str,
    actor: str,
    evidence: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Change a host's health, and tell who watches. What runs on it goes on; one that stands free is powered off."""
    now = lab.clock()
    hosts.set_health(session, name, new, reason=reason, actor=actor, now=now, evidence=evidence)
    flights.add_event(session, kind="host", now=now, data={"host": name, "health": new.value, "reason": reason})
    switch_off_unused(session, lab, [name])
    db.after_commit(session, lab.bell.ring)


def switch_off_unused(session: Session, lab: Lab, names: Iterable[str]) -> None:
    """Power off those of the hosts that nobody may use and nobody has, whatever they were set up for."""
    session.flush()
    for name, found in health.health_of(session, list(names)).items():
        if found in OUT_OF_USE:
            give_back(session, lab, name)
