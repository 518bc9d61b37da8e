"""Queries on the processes of the lab: who shows that it lives, and who has fallen silent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lab.db.tables import AttemptRow, ProcessRow

LEADER, STANDBY, WORKER = "leader", "standby", "worker"
"""What a process is."""

BEAT_S = 5.0
"""How often a process shows that it lives."""

SILENT_S = 20.0
"""A process that was not seen for so long counts as gone."""

KEPT_S = 7 * 86_400.0
"""How long a process is remembered after it was last seen."""


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """One process: what it is, the sites a worker serves, and the jobs it runs."""

    name: str
    kind: str
    sites: tuple[str, ...]
    version: str
    started: datetime
    seen: datetime
    jobs: tuple[str, ...] = ()

    def alive(self, now: datetime) -> bool:
        """Whether it was seen just now."""
        return now - self.seen < timedelta(seconds=SILENT_S)


def see_process(
    session: Session, name: str, *, kind: str, sites: Collection[str], version: str, started: datetime, now: datetime
) -> None:
    """Note that a process lives."""
    session.merge(
        ProcessRow(
            name=name,
            kind=kind,
            sites=dict.fromkeys(sorted(sites), True),
            version=version,
            started=started,
            seen=now,
        )
    )


def forget_process(session: Session, name: str) -> None:
    """A process has ended as it should."""
    session.execute(delete(ProcessRow).where(ProcessRow.name == name))


def forget_silent_processes(session: Session, now: datetime) -> None:
    """Remember no more those that died long ago."""
    session.execute(delete(ProcessRow).where(ProcessRow.seen < now - timedelta(seconds=KEPT_S)))


def list_processes(session: Session) -> list[ProcessView]:
    """Every process that is remembered, by kind and name, with the jobs that are running in it."""
    jobs: dict[str, list[str]] = {}
    running = select(AttemptRow.worker, AttemptRow.flight, AttemptRow.job).where(AttemptRow.finished.is_(None))
    for worker, flight, job in session.execute(running.order_by(AttemptRow.id)):
        jobs.setdefault(worker, []).append(f"{flight}.{job}")
    return [
        ProcessView(
            name=row.name,
            kind=row.kind,
            sites=tuple(sorted(row.sites)),
            version=row.version,
            started=row.started,
            seen=row.seen,
            jobs=tuple(jobs.get(row.name, ())),
        )
        for row in session.scalars(select(ProcessRow).order_by(ProcessRow.kind, ProcessRow.name))
    ]


def living_sites(session: Session, now: datetime) -> set[str]:
    """The sites of which a worker gives signs of life."""
    return {site for view in list_processes(session) if view.kind == WORKER and view.alive(now) for site in view.sites}
