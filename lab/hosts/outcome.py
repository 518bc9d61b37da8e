"""What is worth telling of a simulation: waits, use of hosts, starved jobs, how near it came to the least time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.hosts.bounds import LowerBound, lower_bound
from lab.hosts.model import Host
from lab.hosts.simulation import Outcome, Ran, Scenario

STARVED_FACTOR = 5.0
"""See `starved`."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long jobs waited for hosts, in seconds: quantiles and the longest."""

    jobs: int
    p50: float
    p90: float
    p99: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class Use:
    """A class of hosts (architecture and flags), and the part of all its time in which jobs had them."""

    hosts: int
    busy: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a scenario. Times in seconds; `makespan` is from the first job's coming to the last one's end."""

    ran: int
    impossible: Sequence[str]
    makespan: float
    bound: LowerBound
    waits: Waits
    tenants: Mapping[str, Waits]
    classes: Mapping[str, Use]
    starved: Sequence[str]

    @property
    def ratio(self) -> float:
        """How many times the least time it took; 1 is as good as can be."""
        return self.makespan / self.bound.seconds if self.bound.seconds else 1.0


def summarize(scenario: Scenario, outcome: Outcome) -> Summary:
    """Tell what became of a scenario."""
    ran = outcome.ran
    never = set(outcome.impossible)
    first = min((one.job.request.submitted for one in ran), default=0.0)
    last = max((one.end for one in ran), default=0.0)
    by_tenant: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, float] = defaultdict(float)
    for one in ran:
        by_tenant[one.job.request.tenant].append(one.waited)
        for name in one.hosts.values():
            busy[name] += one.end - one.start
    classes: dict[str, list[str]] = defaultdict(list)
    for host in scenario.hosts:
        if host.usable():
            classes[class_name(host)].append(host.name)
    span = last - first
    return Summary(
        ran=len(ran),
        impossible=outcome.impossible,
        makespan=span,
        bound=lower_bound(scenario.hosts, [job for job in scenario.jobs if job.request.id not in never]),
        waits=_waits([one.waited for one in ran]),
        tenants={tenant: _waits(waited) for tenant, waited in sorted(by_tenant.items())},
        classes={
            name: Use(hosts=len(names), busy=sum(busy[one] for one in names) / (len(names) * span) if span else 0.0)
            for name, names in sorted(classes.items())
        },
        starved=starved(ran),
    )


def class_name(host: Host) -> str:
    """Hosts that offer the same, whichever they are alike to."""
    return " ".join([host.arch, *sorted(flag for flag in host.flags if not flag.startswith("equiv-"))])


def _waits(waited: Sequence[float]) -> Waits:
    order = sorted(waited)
    return Waits(
        jobs=len(order),
        p50=quantile(order, 0.5),
        p90=quantile(order, 0.9),
        p99=quantile(order, 0.99),
        longest=quantile(order, 1.0),
    )


def quantile(sorted_values: Sequence[float], q: float) -> float:
    """The least value with at least a part `q` of all at or below it; 0 when there are none."""
    return sorted_values[max(0, math.ceil(q * len(sorted_values)) - 1)] if sorted_values else 0.0


def starved(ran: Iterable[Ran]) -> list[str]:
    """The jobs that held their flight up out of all proportion.

    One is starved that begins later, counted from when its flight came, than `STARVED_FACTOR` times as long as it took
    until nine tenths of the flight had ended.
    """
    flights: dict[int | None, list[Ran]] = defaultdict(list)
    for one in ran:
        if one.job.request.flight is not None:
            flights[one.job.request.flight].append(one)
    found = []
    for mine in flights.values():
        came = min(one.job.request.submitted for one in mine)
        most = quantile(sorted(one.end for one in mine), 0.9) - came
        found += [one.job.request.id for one in mine if one.start - came > STARVED_FACTOR * most]
    return sorted(found)
