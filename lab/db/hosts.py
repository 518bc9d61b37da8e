"""Queries on hosts and leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lab.db.session import insert_unless_there, matched
from lab.db.tables import HealthChangeRow, HostRow, LeaseRow
from lab.errors import NotFoundError
from lab.hosts.health import HealthChange
from lab.hosts.model import Health, Host, HostState


@dataclass(frozen=True, kw_only=True)
class HostView:
    """A host and who holds it."""

    host: Host
    holder: str | None = None
    since: datetime | None = None


def _host(row: HostRow) -> Host:
    return Host(
        name=row.name,
        arch=row.arch,
        site=row.site,
        flags=frozenset(row.flags),
        properties=row.properties,
        state=HostState(row.state),
        health=Health(row.health),
        health_reason=row.health_reason,
        setup_key=row.setup_key,
        setup_flight=row.setup_flight,
    )


def sync_hosts(session: Session, hosts: Iterable[Host]) -> None:
    """Make the table hold what the lab's file says; state and health stay. A host that left the file stays, absent."""
    wanted = {host.name: host for host in hosts}
    known = set(session.scalars(select(HostRow.name)))
    new: list[dict[str, object]] = [
        {
            "name": name, "arch": host.arch, "site": host.site, "flags": {}, "properties": {}, "present": True,
            "fence": 0, "state": HostState.FREE.value, "health": host.health.value, "health_reason": "",
        }
        for name, host in sorted(wanted.items())
        if name not in known
    ]  # fmt: skip
    if new:  # several processes of a new lab may start at once: whoever comes second finds the rows there
        insert_unless_there(session, HostRow, new)
    rows = {row.name: row for row in session.scalars(select(HostRow))}
    for name, host in wanted.items():
        row = rows[name]
        row.arch, row.site, row.flags, row.properties, row.present = (
            host.arch,
            host.site,
            dict.fromkeys(sorted(host.flags), True),
            dict(host.properties),
            True,
        )
    for name, row in rows.items():
        if name not in wanted:
            row.present = False


def list_hosts(session: Session) -> list[HostView]:
    """The lab's hosts by name, with their holders."""
    leases = {lease.host: lease for lease in session.scalars(select(LeaseRow).where(LeaseRow.released.is_(None)))}
    rows = session.scalars(select(HostRow).where(HostRow.present).order_by(HostRow.name))
    return [
        HostView(
            host=_host(row),
            holder=leases[row.name].holder if row.name in leases else None,
            since=leases[row.name].since if row.name in leases else None,
        )
        for row in rows
    ]


def present_hosts(session: Session) -> list[Host]:
    """The lab's hosts by name, whoever holds them."""
    return [_host(row) for row in session.scalars(select(HostRow).where(HostRow.present).order_by(HostRow.name))]


def host_names(session: Session) -> list[str]:
    """The names of all hosts, those that have left the lab's file among them."""
    return list(session.scalars(select(HostRow.name)))


def absent_hosts(session: Session) -> dict[str, Host]:
    """Hosts that have left the lab's file but are not free: somebody still has them, or they are being cleaned.

    Whoever has one keeps it to the end; nobody gets it afterwards.
    """
    rows = session.scalars(select(HostRow).where(~HostRow.present, HostRow.state != HostState.FREE.value))
    why = "no longer in the lab's file"
    return {row.name: replace(_host(row), health=Health.RETIRED, health_reason=why) for row in rows}


def find_hosts(session: Session, names: Iterable[str]) -> dict[str, Host]:
    """Those of the hosts `names` that the lab has, by name."""
    rows = session.scalars(select(HostRow).where(HostRow.present, HostRow.name.in_(list(names))))
    return {row.name: _host(row) for row in rows}


def find_host(session: Session, name: str) -> Host:
    """One host, also when it has left the lab's file."""
    return _host(session.scalars(select(HostRow).where(HostRow.name == name)).one())


def load_host(session: Session, name: str) -> HostView:
    """One host; `NotFoundError` with the names there are."""
    views = {view.host.name: view for view in list_hosts(session)}
    if name not in views:
        raise NotFoundError(f"there is no host {name!r}", hint=f"there are: {', '.join(views) or 'none'}")
    return views[name]


def site_of_host(session: Session, name: str) -> str:
    """Where a host stands, or stood; the default site when nobody knows it."""
    return session.scalar(select(HostRow.site).where(HostRow.name == name)) or "default"


def take_host(
    session: Session,
    name: str,
    *,
    attempt: int | None = None,
    booking: int | None = None,
    holder: str,
    now: datetime,
) -> int:
    """Record the lease of an attempt or a person under the host's present fence, and return that.

    The database refuses a second one.
    """
    fence = session.scalars(select(HostRow.fence).where(HostRow.name == name)).one()
    session.add(LeaseRow(host=name, attempt=attempt, booking=booking, holder=holder, fence=fence, since=now))
    session.flush()
    return fence


def lock_free(session: Session, names: Iterable[str]) -> bool:
    """Whether all of these hosts are free; if so they stay it until this transaction does something about them."""
    wanted = sorted(names)
    is_free = (HostRow.name.in_(wanted), HostRow.present, HostRow.state == HostState.FREE.value)
    free = select(HostRow.name).where(*is_free)
    return len(session.scalars(free.order_by(HostRow.name).with_for_update()).all()) == len(wanted)


def fence_host(session: Session, name: str) -> int | None:
    """Set a free host to leased and raise its fence; None when it is not free: somebody else was first."""
    if not matched(
        session,
        update(HostRow)
        .where(HostRow.name == name, HostRow.state == HostState.FREE.value)
        .values(state=HostState.LEASED.value, fence=HostRow.fence + 1),
    ):
        return None
    return session.scalars(select(HostRow.fence).where(HostRow.name == name)).one()


def release_hosts(
    session: Session,
    attempt: int,
    *,
    state: HostState,
    setups: dict[str, str] | None,
    flight: int | None,
    now: datetime,
) -> list[str]:
    """End the leases of an attempt; its hosts go to `state`, set up as `setups` says (None: unknown). Returns them."""
    names = []
    for lease in session.scalars(select(LeaseRow).where(LeaseRow.attempt == attempt, LeaseRow.released.is_(None))):
        lease.released = now
        key = (setups or {}).get(lease.host)
        session.execute(
            update(HostRow)
            .where(HostRow.name == lease.host)
            .values(state=state.value, setup_key=key, setup_flight=flight if key else None)
        )
        names.append(lease.host)
    return names


def set_host_setup(session: Session, name: str, key: str | None, flight: int | None) -> None:
    """Note what is booted on a host."""
    session.execute(update(HostRow).where(HostRow.name == name).values(setup_key=key, setup_flight=flight))


def start_cleaning(session: Session, flight: int) -> list[str]:
    """Free hosts that are still set up for a finished flight go to cleaning; returns them."""
    names = list(
        session.scalars(
            select(HostRow.name).where(HostRow.setup_flight == flight, HostRow.state == HostState.FREE.value)
        )
    )
    session.execute(
        update(HostRow)
        .where(HostRow.name.in_(names))
        .values(state=HostState.CLEANING.value, setup_key=None, setup_flight=None)
    )
    return names


def clean_free_host(session: Session, name: str) -> bool:
    """A free host goes to cleaning, whatever it is set up for; False when it is not free any more."""
    return matched(
        session,
        update(HostRow)
        .where(HostRow.name == name, HostRow.state == HostState.FREE.value)
        .values(state=HostState.CLEANING.value, setup_key=None, setup_flight=None),
    )


def cleaning_hosts(session: Session) -> list[str]:
    """Hosts that are being made clean."""
    return list(
        session.scalars(select(HostRow.name).where(HostRow.state == HostState.CLEANING.value).order_by(HostRow.name))
    )


def end_cleaning(session: Session, name: str) -> bool:
    """A cleaned host is free again; False when it was not in cleaning."""
    return matched(
        session,
        update(HostRow)
        .where(HostRow.name == name, HostRow.state == HostState.CLEANING.value)
        .values(state=HostState.FREE.value, setup_key=None, setup_flight=None),
    )


def set_health(
    session: Session,
    name: str,
    new: Health,
    *,
    reason: str,
    actor: str,
    now: datetime,
    evidence: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Change a host's health and write down why."""
    row = session.get(HostRow, name)
    if row is None:
        raise NotFoundError(f"there is no host {name!r}")
    session.add(
        HealthChangeRow(
            host=name, at=now, old=row.health, new=new.value, reason=reason, actor=actor, evidence=dict(evidence)
        )
    )
    row.health, row.health_reason = new.value, reason


def health_history(session: Session, name: str) -> list[HealthChange]:
    """A host's changes of health, newest first."""
    rows = session.scalars(
        select(HealthChangeRow).where(HealthChangeRow.host == name).order_by(HealthChangeRow.id.desc())
    )
    return [_health_change(row) for row in rows]


def newest_health_change(session: Session, name: str) -> HealthChange | None:
    """How a host's health changed last; None when it never did."""
    query = select(HealthChangeRow).where(HealthChangeRow.host == name).order_by(HealthChangeRow.id.desc()).limit(1)
    row = session.scalars(query).first()
    return _health_change(row) if row is not None else None


def _health_change(row: HealthChangeRow) -> HealthChange:
    return HealthChange(
        at=row.at,
        old=Health(row.old),
        new=Health(row.new),
        reason=row.reason,
        actor=row.actor,
        evidence=row.evidence,
    )
