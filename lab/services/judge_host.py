"""Judge a host: what has ended on it may change its health."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, health, hosts
from lab.db import session as db
from lab.db.tables import AttemptRow
from lab.flights.status import JobStatus
from lab.hosts.durations import host_class
from lab.hosts.health import LAB, Tally, judge
from lab.hosts.model import Health

TALLIED = timedelta(days=30)
"""What is older says nothing of a host."""

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
    since, change = health.last_good(session, name), health.newest_change(session, name)
    by_lab = change is not None and change[1] == LAB
    own, equals = _tallies(session, lab, name)
    seen = health.seen_on(session, name, since)
    verdict = judge(host.health, seen, own, equals, lab.health_rules, by_lab=by_lab)
    if verdict is not None and verdict.health is not host.health:
        change_health(session, lab, name, verdict.health, reason=verdict.reason, actor=LAB, evidence=verdict.evidence)


def _tallies(session: Session, lab: Lab, name: str) -> tuple[Tally, Tally]:
    everyone = {host.name: host_class(host) for host in hosts.present_hosts(session)}
    alike = [other for other, kind in everyone.items() if kind == everyone.get(name)]
    begin = max(filter(None, (lab.clock() - TALLIED, health.last_good(session, name))))
    own = health.tallies(session, [name], begin).get(name, Tally())
    others = health.tallies(session, [other for other in alike if other != name], lab.clock() - TALLIED).values()
    equals = Tally(attempts=sum(one.attempts for one in others), broken=sum(one.broken for one in others))
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
    if new in OUT_OF_USE and hosts.clean_free_host(session, name):
        db.after_commit(session, partial(lab.dispatch.clean_host, name))
    db.after_commit(session, lab.bell.ring)
