"""Begin leases: those whose time has come get their hosts, the others learn why they wait, and who must make way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts, leases
from lab.hosts.calendar import entries
from lab.hosts.lease_plan import Held, LeasePlan, next_change, plan_leases
from lab.hosts.leases import PersonLease, stamp
from lab.services.give_back import give_back


class Overtaken(RuntimeError):  # noqa: N818 - what happened, and no error of anybody
    """Somebody else was quicker: what was done is to be rolled back, and tried again."""


def begin_leases(session: Session, lab: Lab, *, wanted: Mapping[str, str] = MappingProxyType({})) -> LeasePlan:
    """Do what `plan_leases` says; `wanted` are hosts under preemptable leases on which jobs would start, and for whom.

    Whoever calls it rings the bell afterwards, or is the leader. Raises `Overtaken` when somebody took a host while the
    plan was made.
    """
    going = leases.going_leases(session)
    if not going:
        return LeasePlan()
    now = lab.clock()
    present = hosts.present_hosts(session)
    plan = plan_leases(
        now,
        going,
        present,
        entries(going, leases.blockages(session, now), present, now),
        held=_held(session, going),
        wanted=wanted,
        limit=lab.limit,
        rules=lab.lease_rules,
    )
    by_number = {lease.id: lease for lease in going}
    for number, host in plan.begin.items():
        _begin(session, lab, by_number[number], host)
    for number, wait in plan.waits.items():
        if leases.set_wait(session, number, why=wait.why, expected=wait.expected, host=wait.host):
            data = {"lease": number, "what": "waits", "host": wait.host}
            flights.add_event(session, kind="lease", now=now, data=data)
    for number, notice in plan.notices.items():
        at, whom = (notice.at, notice.for_whom) if notice else (None, "")
        if leases.set_notice(session, number, at=at, for_whom=whom):
            what, detail = ("notice", f"to be taken {stamp(at)} for {whom}") if at else ("notice withdrawn", "")
            theirs = by_number[number].host
            leases.add_change(session, number, what, actor="lab", now=now, host=theirs, detail=detail)
    for name in plan.power_off:
        give_back(session, lab, name)
    return plan


def next_lease_change(session: Session, lab: Lab) -> datetime | None:
    """When leases or blockages are to be looked at again, if nothing else happens."""
    now = lab.clock()
    return next_change(leases.going_leases(session), leases.blockages(session, now), now, lab.lease_rules)


def _held(session: Session, going: list[PersonLease]) -> dict[str, Held]:
    """Who has which host, as it is told to those who wait for it."""
    ends = {lease.id: lease.ends for lease in going}
    held = {}
    for host, hold in leases.holders(session).items():
        end = ends.get(hold.lease) if hold.lease is not None else None
        until = f" until {stamp(end)}" if end else ""
        held[host] = Held(who=f"{'job ' if hold.lease is None else ''}{hold.holder}{until}", back=end)
    return held


def _begin(session: Session, lab: Lab, lease: PersonLease, host: str) -> None:
    if hosts.fence_host(session, host) is None:
        raise Overtaken(f"host {host} was taken while the plan was made")
    now = lab.clock()
    fence = leases.begin_lease(session, lease, host, now=now, ends=lease.ends or now + lease.length)
    if fence is None:
        raise Overtaken(f"{lease.name} was changed while the plan was made")
    leases.add_change(session, lease.id, "begun", actor="lab", now=now, host=host, detail=f"token {fence}")
