"""Queries on how long things took and on who used the hosts: small tables, brought up to date as attempts end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lab.db.session import insert_unless_there, upsert
from lab.db.tables import DurationRow, LastRunRow, UsageRow
from lab.hosts.choice import LastRun
from lab.hosts.durations import ANY_CLASS, Estimate, History, remembered, subjects
from lab.hosts.usage import faded


def add_duration(session: Session, *, job: str, recipe: str, place: str, seconds: float, now: datetime) -> None:
    """Remember how long an attempt took on a class of hosts."""
    # Always in one order, so that two attempts that end at one time cannot wait for each other.
    for subject in sorted(subjects(job, recipe)):
        for where in sorted({place, ANY_CLASS}):
            key = {"subject": subject, "host_class": where}
            insert_unless_there(session, DurationRow, [key | {"samples": [], "updated": now}])
            row = session.scalars(select(DurationRow).filter_by(**key).with_for_update()).one()
            row.samples, row.updated = remembered(row.samples, seconds), now


def load_history(session: Session, default: Estimate) -> History:
    """All that is remembered: a few numbers for each job name, recipe and class of hosts."""
    rows = session.execute(select(DurationRow.subject, DurationRow.host_class, DurationRow.samples))
    return History(samples={(subject, where): samples for subject, where, samples in rows}, default=default)


def add_last_run(session: Session, *, job: str, host: str, failed: bool, now: datetime) -> None:
    """Remember that a job ended on a host."""
    values = {"job": job, "host": host, "at": now, "failed": failed}
    statement = upsert(session, LastRunRow).values([values])
    session.execute(statement.on_conflict_do_update(index_elements=["job", "host"], set_={"at": now, "failed": failed}))


def load_last_runs(
    session: Session, *, since: datetime, jobs: Collection[str] | None = None
) -> dict[str, dict[str, LastRun]]:
    """Where jobs (all, or those of these names) ended since then: name -> host -> its last run there."""
    query = select(LastRunRow).where(LastRunRow.at >= since)
    if jobs is not None:
        query = query.where(LastRunRow.job.in_(jobs))
    found: dict[str, dict[str, LastRun]] = {}
    for row in session.scalars(query):
        found.setdefault(row.job, {})[row.host] = LastRun(at=row.at.timestamp(), failed=row.failed)
    return found


def charge(session: Session, tenant: str, host_seconds: float, *, half_life_s: float, now: datetime) -> None:
    """Add to what a tenant has used."""
    insert_unless_there(session, UsageRow, [{"tenant": tenant, "host_seconds": 0.0, "at": now}])
    row = session.scalars(select(UsageRow).where(UsageRow.tenant == tenant).with_for_update()).one()
    row.host_seconds = faded(row.host_seconds, (now - row.at).total_seconds(), half_life_s) + max(host_seconds, 0.0)
    row.at = max(row.at, now)  # a clock that went back must not let the use fade twice


def load_usage(session: Session, *, half_life_s: float, now: datetime) -> dict[str, float]:
    """What each tenant has used, in host-seconds as they count now."""
    return {
        row.tenant: faded(row.host_seconds, (now - row.at).total_seconds(), half_life_s)
        for row in session.scalars(select(UsageRow))
    }
