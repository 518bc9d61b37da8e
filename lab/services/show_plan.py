"""Show the plan: for every host who has it, who will, and what stands against that, as far as anybody can tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates, hosts, leases, queue, sites, waits
from lab.db.queue import Running
from lab.db.waits import QueueLine
from lab.flights.model import Window
from lab.flights.views import wait_view, window_view
from lab.hosts.breaker import told
from lab.hosts.calendar import Entry, entries
from lab.hosts.durations import History, host_class
from lab.hosts.model import Host, HostState

MOST_PROJECTED = 2000
"""Jobs of the future that are shown at most."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a host's time.

    `kind`: job | cleaning | lease | booking | blockage | shut | projected. `start` is known but for a projected job;
    `end` is None when nobody knows it. `who` is `flight.job`, a person, or empty; `role` a job's role on the host.
    """

    kind: str
    start: Window
    end: Window | None
    who: str = ""
    why: str = ""
    flight: int | None = None
    job: str = ""
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class HostPlan:
    """A host and its time, in order."""

    host: Host
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class TenantLine:
    """A tenant in the queue: host-seconds recently used, share, jobs that wait and hosts held now."""

    tenant: str
    used: float
    share: float
    waiting: int
    holding: int


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """The plan of the lab at `now`; `kinds` counts those who wait by kind of reason."""

    now: datetime
    hosts: tuple[HostPlan, ...]
    waiting: int
    kinds: Mapping[str, int]
    tenants: tuple[TenantLine, ...]


def show_plan(session: Session, lab: Lab, *, ahead: timedelta) -> PlanView:
    """The plan as it is written down, from what holds hosts now until `ahead`; the leader keeps it up to date."""
    now = lab.clock()
    history = estimates.load_history(session, lab.scheduler.default_estimate)
    found = {host.name: host for host in hosts.present_hosts(session)} | hosts.absent_hosts(session)
    running = list(queue.load_running(session))
    spans: dict[str, list[Span]] = defaultdict(list)
    for one in running:
        for role, name in one.hosts.items():
            if name in found:
                spans[name].append(_job_span(one, role, found[name], history, now))
    calendar = entries(leases.going_leases(session), leases.blockages(session, now), found.values(), now)
    for entry in calendar:
        if entry.start < now + ahead:
            spans[entry.host].append(_entry_span(entry))
    shut = sites.shut_sites(session)
    for host in found.values():
        if host.state is HostState.CLEANING:
            spans[host.name].append(Span(kind="cleaning", start=_at(now), end=None, why="being powered off"))
        if host.site in shut:
            spans[host.name].append(Span(kind="shut", start=_at(now), end=None, why=told(host.site, shut[host.site])))
    for line in waits.projected(session, now + ahead, MOST_PROJECTED):
        for name, span in _projected(line):
            spans[name].append(span)
    counts = waits.count_queue(session)
    return PlanView(
        now=now,
        hosts=tuple(
            HostPlan(host=host, spans=tuple(sorted(spans[name], key=lambda span: (span.start.p50, span.kind))))
            for name, host in sorted(found.items())
        ),
        waiting=sum(counts.values()),
        kinds=_by_kind(counts),
        tenants=_tenants(session, lab, counts, running, now),
    )


def _at(moment: datetime) -> Window:
    return Window(p50=moment, p90=moment)


def _job_span(one: Running, role: str, host: Host, history: History, now: datetime) -> Span:
    left = history.left(one.job, one.recipe, host_class(host), (now - one.started).total_seconds())
    end = Window(p50=now + timedelta(seconds=left.p50_s), p90=now + timedelta(seconds=left.p90_s))
    return Span(
        kind="job",
        start=_at(one.started),
        end=end,
        who=f"{one.flight}.{one.job}",
        flight=one.flight,
        job=one.job,
        role=role,
        why=f"of {one.tenant}" if one.tenant else "",
    )


def _entry_span(entry: Entry) -> Span:
    end = _at(entry.end) if entry.end is not None else None
    return Span(kind=entry.kind, start=_at(entry.start), end=end, who=entry.who, why=entry.why)


def _projected(line: QueueLine) -> Iterable[tuple[str, Span]]:
    wait = line.wait
    if wait is None or wait.start is None:
        return
    for role, name in wait.hosts.items():
        yield (
            name,
            Span(
                kind="projected",
                start=wait.start,
                end=wait.end,
                who=line.id,
                flight=line.flight,
                job=line.job,
                role=role,
                why=f"of {line.tenant}" if line.tenant else "",
            ),
        )


def _by_kind(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    kinds: dict[str, int] = defaultdict(int)
    for (_tenant, kind), count in counts.items():
        kinds[kind] += count
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def _tenants(
    session: Session, lab: Lab, counts: Mapping[tuple[str, str], int], running: Sequence[Running], now: datetime
) -> tuple[TenantLine, ...]:
    """Whoever waits or holds something, or has used hosts lately; who has used least for its share first."""
    used = estimates.load_usage(session, half_life_s=lab.scheduler.usage_half_life_s, now=now)
    waiting: dict[str, int] = defaultdict(int)
    for (tenant, _kind), count in counts.items():
        waiting[tenant] += count
    holding: dict[str, int] = defaultdict(int)
    for one in running:
        holding[one.tenant] += len(one.hosts)
        used[one.tenant] = used.get(one.tenant, 0.0) + len(one.hosts) * max(0.0, (now - one.started).total_seconds())
    lines = [
        TenantLine(
            tenant=tenant,
            used=round(used.get(tenant, 0.0), 1),
            share=lab.scheduler.shares.get(tenant, 1.0),
            waiting=waiting.get(tenant, 0),
            holding=holding.get(tenant, 0),
        )
        for tenant in {*used, *waiting, *holding}
        if used.get(tenant, 0.0) >= 1 or tenant in waiting or tenant in holding
    ]
    return tuple(sorted(lines, key=lambda line: (line.used / line.share, line.tenant)))


def plan_json(view: PlanView) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "now": view.now.isoformat(timespec="milliseconds"),
        "waiting": view.waiting,
        "kinds": dict(view.kinds),
        "tenants": [
            {
                "tenant": line.tenant,
                "used_host_s": line.used,
                "share": line.share,
                "waiting": line.waiting,
                "holding": line.holding,
            }
            for line in view.tenants
        ],
        "hosts": [
            {
                "name": row.host.name,
                "state": row.host.state.value,
                "health": row.host.health.value,
                "spans": [
                    {
                        "kind": span.kind,
                        "start": window_view(span.start),
                        "end": window_view(span.end),
                        "who": span.who,
                        "why": span.why,
                        "role": span.role,
                    }
                    for span in row.spans
                ],
            }
            for row in view.hosts
        ],
    }


def queue_json(line: QueueLine) -> dict[str, Any]:
    """A queued job as plain data."""
    return {
        "flight": line.flight,
        "job": line.job,
        "recipe": line.recipe,
        "tenant": line.tenant,
        "priority": line.priority,
        "queued": line.queued.isoformat(timespec="milliseconds"),
        "waiting": wait_view(line.wait) if line.wait else None,
    }
