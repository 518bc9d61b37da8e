"""Simulate: run scenarios in virtual time through the leader's planner, and measure how long its decisions take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates
from lab.db.past import load_past
from lab.errors import ConfigError
from lab.flights.dependencies import needed
from lab.flights.requests import request_of
from lab.hosts.allocator import Allocator
from lab.hosts.outcome import Summary, Waits, quantile, summarize
from lab.hosts.planner import Plan, check_possible
from lab.hosts.projection import When, project
from lab.hosts.simulation import Rules, Scenario, SimulatedJob, simulate

LOOK_AGAIN = 1.2
"""A projection is measured when the queue is so many times longer than at the one before."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of a scenario, and what planning it cost, in seconds of this machine's time."""

    what: str
    summary: Summary
    decisions: int
    decision_p50: float
    decision_p99: float
    decision_longest: float
    decision_p99_cpu: float
    """as decision_p99, but only while this program had a processor: on a busy machine that is less"""
    deciding: float
    projection: float
    """of the whole queue, when it was longest"""
    projection_cpu: float
    projected: int
    """jobs in it"""
    took: float


def measure(what: str, scenario: Scenario) -> Measured:
    """Run a scenario to its end."""
    watch = _Watch()
    begun = time.perf_counter()
    outcome = simulate(scenario, timed=watch.timed, seen=watch.seen)
    took = time.perf_counter() - begun
    times = sorted(watch.times)
    return Measured(
        what=what,
        summary=summarize(scenario, outcome),
        decisions=outcome.decisions,
        decision_p50=quantile(times, 0.5),
        decision_p99=quantile(times, 0.99),
        decision_longest=quantile(times, 1.0),
        decision_p99_cpu=quantile(sorted(watch.cpu_times), 0.99),
        deciding=sum(times),
        projection=watch.projection,
        projection_cpu=watch.projection_cpu,
        projected=watch.projected,
        took=took,
    )


class _Watch:
    """Measures decisions, and projections of the longest queues."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self.projection = 0.0
        self.projection_cpu = 0.0
        self.projected = 0

    def timed(self, decide: Callable[[], Plan]) -> Plan:
        begun, cpu = time.perf_counter(), time.thread_time()
        decided = decide()
        self.times.append(time.perf_counter() - begun)
        self.cpu_times.append(time.thread_time() - cpu)
        return decided

    def seen(self, now: float, lab: Allocator, used: Mapping[str, float]) -> None:
        waiting = len(lab.queue.requests)
        if waiting <= self.projected * LOOK_AGAIN:
            return
        begun, cpu = time.perf_counter(), time.thread_time()
        back = {}
        for name in lab.fleet.hosts.keys() - lab.fleet.free.keys():
            left = lab.runs.back(name, now)
            back[name] = When(p50=now + left, p90=now + left)
        project(now, lab.queue.in_turn(used, now=now), lab.fleet.hosts.values(), back=back)
        self.projection, self.projected = time.perf_counter() - begun, waiting
        self.projection_cpu = time.thread_time() - cpu


def scenario_from_history(session: Session, lab: Lab, most: int) -> Scenario:
    """The newest jobs that ended, as they came and as long as they took, on the hosts that the lab has now."""
    history = estimates.load_history(session, lab.scheduler.default_estimate)
    found: list[SimulatedJob] = []
    past = list(load_past(session, most))
    if not past:
        raise ConfigError("no job has ended in this lab yet", hint="run a flight, or simulate a file or made-up jobs")
    first = min(one.queued for one in past)
    there = {one.job.id for one in past}
    for one in past:
        request = request_of(
            one.job,
            priority=one.priority,
            position=one.position,
            tenant=one.tenant,
            estimate=history.expected(one.job.name, one.job.recipe),
        )
        request = replace(request, submitted=(one.queued - first).total_seconds(), avoid=frozenset())
        needs = {f"{flight}.{name}" for flight, name in needed(one.job.values, one.job.flight).values()}
        found.append(SimulatedJob(request=request, seconds=one.seconds, after=tuple(sorted(needs & there))))
    return Scenario(hosts=lab.hosts, jobs=found, rules=rules_of(lab))


def rules_of(lab: Lab) -> Rules:
    """How this lab decides."""
    scheduler = lab.scheduler
    return Rules(
        shares=scheduler.shares,
        ageing_s=scheduler.ageing_s,
        half_life_s=scheduler.usage_half_life_s,
        policy=scheduler.policy,
        limit=lab.limit,
    )


def check_scenario(scenario: Scenario) -> None:
    """Raise `ConfigError` when a job asks for what the hosts can never give, naming the nearest one."""
    seen = set()
    for job in scenario.jobs:
        request = job.request
        kind = tuple((role.requirement, role.equivalent) for role in request.roles)
        if request.roles and kind not in seen:
            seen.add(kind)
            check_possible(request, scenario.hosts, scenario.rules.limit)


def measured_json(one: Measured) -> dict[str, Any]:
    """A measured scenario, for programs. Times in seconds."""
    summary = one.summary
    return {
        "what": one.what,
        "jobs": summary.ran,
        "impossible": len(summary.impossible),
        "makespan_s": round(summary.makespan, 1),
        "lower_bound_s": round(summary.bound.seconds, 1),
        "lower_bound_of": summary.bound.why,
        "makespan_over_lower_bound": round(summary.ratio, 4),
        "waits_s": _waits_json(summary.waits),
        "tenants": {tenant: _waits_json(waits) for tenant, waits in summary.tenants.items()},
        "utilisation": {
            name: {"hosts": use.hosts, "busy": round(use.busy, 4)} for name, use in summary.classes.items()
        },
        "starved": {"count": len(summary.starved), "jobs": list(summary.starved[:20])},
        "planning": {
            "decisions": one.decisions,
            "decisions_per_s": round(one.decisions / one.deciding, 1) if one.deciding else 0.0,
            "decision_p50_ms": round(one.decision_p50 * 1000, 3),
            "decision_p99_ms": round(one.decision_p99 * 1000, 3),
            "decision_p99_cpu_ms": round(one.decision_p99_cpu * 1000, 3),
            "decision_max_ms": round(one.decision_longest * 1000, 3),
            "full_projection_s": round(one.projection, 3),
            "full_projection_cpu_s": round(one.projection_cpu, 3),
            "projected_jobs": one.projected,
            "simulation_s": round(one.took, 1),
        },
    }


def _waits_json(waits: Waits) -> dict[str, float]:
    return {name.replace("longest", "max"): round(value, 1) for name, value in asdict(waits).items()}


def compared(all_: Sequence[Measured]) -> list[str]:
    """All tenants of any of them, the longest waits in the first one first."""
    waits = all_[0].summary.tenants
    names = {tenant for one in all_ for tenant in one.summary.tenants}
    return sorted(names, key=lambda tenant: (-waits[tenant].longest if tenant in waits else 0.0, tenant))
