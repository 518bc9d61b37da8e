"""What hosts did lately, as their health is judged by it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, String, and_, case, cast, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from lab.db.hosts import newest_health_change
from lab.db.tables import AttemptHostRow, AttemptRow, FlightRow, HealthChangeRow, HostRow, JobRow, RunvarRow
from lab.flights.checks import BRANCH, CHECKED_HOST, RECIPE
from lab.flights.status import JobStatus
from lab.hosts.health import LAB, Seen, Tally
from lab.hosts.model import Health

_LOOK_BACK = 50
_ELSEWHERE = timedelta(days=14)
_ENDED = (JobStatus.PASS.value, JobStatus.FAIL.value, JobStatus.BROKEN.value)
_WORKS = (JobStatus.PASS.value, JobStatus.FAIL.value)
_OPEN = (JobStatus.QUEUED.value, JobStatus.PREPARING.value, JobStatus.RUNNING.value)


def health_of(session: Session, names: Collection[str]) -> dict[str, Health]:
    """The health of these hosts, by name."""
    rows = session.execute(select(HostRow.name, HostRow.health).where(HostRow.name.in_(names)).order_by(HostRow.name))
    return {name: Health(health) for name, health in rows}


def blamed_before(session: Session, flight: int, job: str) -> set[str]:
    """The hosts on which earlier attempts at a job broke."""
    query = select(AttemptRow.blames).where(
        AttemptRow.flight == flight, AttemptRow.job == job, AttemptRow.blames.is_not(None)
    )
    return {name for name in session.scalars(query) if name}


def changed_by_lab(session: Session, host: str) -> bool:
    """Whether a rule, and no person, has put the host where it is."""
    change = newest_health_change(session, host)
    return change is not None and change.actor == LAB


def last_good(session: Session, host: str) -> datetime | None:
    """When the host was last found good, or sent to be tried; None when its health was never in doubt."""
    fresh = (Health.GOOD.value, Health.BURN_IN.value)
    query = select(HealthChangeRow.at).where(HealthChangeRow.host == host, HealthChangeRow.new.in_(fresh))
    # A suspect that was cleared again has not been mended: what it did before still counts.
    mended = query.where(HealthChangeRow.old != Health.SUSPECT.value)
    return session.scalar(mended.order_by(HealthChangeRow.id.desc()).limit(1))


def failed_burn_ins(session: Session, host: str) -> int:
    """How many burn-ins have failed since the host was last good."""
    good = select(func.max(HealthChangeRow.id)).where(
        HealthChangeRow.host == host, HealthChangeRow.new == Health.GOOD.value
    )
    query = select(func.count()).where(
        HealthChangeRow.host == host,
        HealthChangeRow.old == Health.BURN_IN.value,
        HealthChangeRow.new == Health.QUARANTINED.value,
        HealthChangeRow.id > func.coalesce(good.scalar_subquery(), 0),
    )
    return session.scalar(query) or 0


def seen_on(session: Session, host: str, since: datetime | None) -> list[Seen]:
    """What ended on the host since then, the newest first; what broke, but not on this host, is left out."""
    query = (
        select(AttemptRow.id, AttemptRow.flight, AttemptRow.job, AttemptRow.status, AttemptRow.finished, JobRow.recipe)
        .join(AttemptHostRow, AttemptHostRow.attempt == AttemptRow.id)
        .join(JobRow, and_(JobRow.flight == AttemptRow.flight, JobRow.name == AttemptRow.job))
        .where(
            AttemptHostRow.host == host,
            AttemptRow.status.in_(_ENDED),
            or_(AttemptRow.status != JobStatus.BROKEN.value, AttemptRow.blames == host),
        )
        .order_by(AttemptRow.finished.desc(), AttemptRow.id.desc())
        .limit(_LOOK_BACK)
    )
    if since is not None:
        query = query.where(AttemptRow.finished > since)
    found = []
    for attempt, flight, job, status, finished, recipe in session.execute(query):
        check = recipe == RECIPE
        broken = status == JobStatus.BROKEN.value or (check and status != JobStatus.PASS.value)
        assert finished is not None, "it has ended"
        elsewhere = _elsewhere(session, flight, job, host, finished) if broken else ""
        found.append(Seen(attempt=attempt, job=f"{flight}.{job}", broken=broken, elsewhere=elsewhere, check=check))
    return found


def _elsewhere(session: Session, flight: int, job: str, host: str, at: datetime) -> str:
    """An attempt at the same job that worked on other hosts alone, as flight.job; of its own flight if there is one."""
    on_it = exists().where(AttemptHostRow.attempt == AttemptRow.id, AttemptHostRow.host == host)
    query = (
        select(AttemptRow.flight)
        .where(
            AttemptRow.job == job,
            AttemptRow.status.in_(_WORKS),
            AttemptRow.finished > at - _ELSEWHERE,
            exists().where(AttemptHostRow.attempt == AttemptRow.id),
            ~on_it,
        )
        .order_by(case((AttemptRow.flight == flight, 0), else_=1), AttemptRow.id.desc())
        .limit(1)
    )
    found = session.scalar(query)
    return f"{found}.{job}" if found is not None else ""


def tallies(session: Session, hosts: Collection[str], since: datetime) -> dict[str, Tally]:
    """How many jobs ran on each of these hosts since then, and how many of them broke on it and work elsewhere.

    Tries at one job are no chances of their own: a job counts once, as broken when one of them broke.
    """
    works, on_it = aliased(AttemptRow), aliased(AttemptHostRow)
    elsewhere = exists().where(
        works.job == AttemptRow.job,
        works.status.in_(_WORKS),
        works.finished > since,
        exists().where(on_it.attempt == works.id),
        ~exists().where(on_it.attempt == works.id, on_it.host == AttemptHostRow.host).correlate(works, AttemptHostRow),
    )
    broke = and_(AttemptRow.status == JobStatus.BROKEN.value, AttemptRow.blames == AttemptHostRow.host, elsewhere)
    job = cast(AttemptRow.flight, String) + "." + AttemptRow.job
    query = (
        select(
            AttemptHostRow.host,
            func.count(job.distinct()),
            func.count(case((AttemptRow.status == JobStatus.BROKEN.value, job)).distinct()),
        )
        .join(AttemptRow, AttemptRow.id == AttemptHostRow.attempt)
        .where(AttemptHostRow.host.in_(hosts), AttemptRow.finished > since, or_(AttemptRow.status.in_(_WORKS), broke))
        .group_by(AttemptHostRow.host)
    )
    return {host: Tally(jobs=jobs, broken=broken) for host, jobs, broken in session.execute(query)}


def to_tend(session: Session) -> dict[str, Health]:
    """The present hosts that are not simply in use: quarantined by the lab, or in burn-in."""
    wanted = (Health.QUARANTINED.value, Health.BURN_IN.value)
    query = select(HostRow.name, HostRow.health).where(HostRow.health.in_(wanted), HostRow.present)
    found = {name: Health(health) for name, health in session.execute(query.order_by(HostRow.name))}
    return {name: health for name, health in found.items() if health is Health.BURN_IN or changed_by_lab(session, name)}


def open_checks(session: Session) -> dict[str, dict[int, str]]:
    """The hosts that are being checked, or are to be: the flights of their checks, and what those ask of a host."""
    need = aliased(RunvarRow)
    query = _checks(JobRow.flight, func.coalesce(need.value, "")).outerjoin(
        need, and_(need.flight == JobRow.flight, need.job == JobRow.name, need.name == "all_hostflags")
    )
    found: dict[str, dict[int, str]] = {}
    for host, flight, asked in session.execute(query.where(FlightRow.finished.is_(None), JobRow.status.in_(_OPEN))):
        found.setdefault(host, {})[flight] = asked
    return found


def latest_checks(session: Session, since: datetime) -> dict[str, datetime]:
    """When the latest flight that checks each host was begun, of those begun since then."""
    query = _checks(func.max(FlightRow.started)).where(FlightRow.started >= since).group_by(RunvarRow.value)
    return {host: begun for host, begun in session.execute(query) if begun is not None}


def _checks(*told: Any) -> Select[Any]:
    """The host, and what else is to be told, of each check of a host."""
    return (
        select(RunvarRow.value, *told)
        .select_from(FlightRow)
        .join(JobRow, JobRow.flight == FlightRow.id)
        .join(RunvarRow, and_(RunvarRow.flight == JobRow.flight, RunvarRow.job == JobRow.name))
        .where(FlightRow.branch == BRANCH, JobRow.recipe == RECIPE, RunvarRow.name == CHECKED_HOST)
    )


def used_since(session: Session, since: datetime) -> set[str]:
    """The hosts on which something has ended since then, however."""
    query = select(AttemptHostRow.host).join(AttemptRow, AttemptRow.id == AttemptHostRow.attempt)
    return set(session.scalars(query.where(AttemptRow.finished > since).distinct()))
