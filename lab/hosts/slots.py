"""How many hosts may run at one time: on a small machine fewer than the lab has. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lab.hosts.model import Health, Host, HostState

NEVER: Final = -math.inf
"""What is claimed from now on is for nobody else, however short."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most `running` of the hosts named `hosts` are powered on at one time; others do not count."""

    hosts: frozenset[str]
    running: int


def runs(host: Host) -> bool:
    """Whether the host may be powered on: somebody holds it, or it stands set up for the next job."""
    return host.state is not HostState.FREE or host.setup_key is not None


class Slots:
    """What runs while a plan is being made. It changes as hosts are started, claimed by a job that waits, or ended.

    An ended host runs until it has been powered off; only then does what was claimed for it fit.
    """

    def __init__(self, limit: Limit | None, hosts: Iterable[Host]) -> None:
        self._limit = limit
        counted = [host for host in hosts if limit is not None and host.name in limit.hosts]
        self._running = {host.name for host in counted if runs(host)}
        self._ending = {host.name for host in counted if host.state is HostState.CLEANING}
        self._claimed: dict[str, float] = {}
        """claimed hosts, and in how many seconds they are to run"""

    @property
    def unlimited(self) -> bool:
        """Whether all hosts may run at once."""
        return self._limit is None

    def possible(self, names: Collection[str]) -> bool:
        """Whether these hosts may ever run together."""
        return self._limit is None or len(self._limit.hosts.intersection(names)) <= self._limit.running

    def free_for(self, names: Collection[str], length_s: float = math.inf) -> bool:
        """Whether these hosts may run from now on for `length_s` seconds, without taking what is claimed by then."""
        if self._limit is None:
            return True
        new = self._limit.hosts.intersection(names) - self._running
        claimed = {name for name, until in self._claimed.items() if until < length_s}
        return not new or len(self._running | claimed | new) <= self._limit.running

    def free_at(self, names: Collection[str], back: Mapping[str, float]) -> float:
        """In how many seconds these may run together; `back` is in how many those that somebody has are back."""
        if self._limit is None:
            return 0.0
        new = self._limit.hosts.intersection(names) - self._running
        missing = len(self._running | self._claimed.keys() | new) - self._limit.running
        ends = sorted(back.get(name, 0.0) for name in self._running.difference(names))
        return ends[missing - 1] if 0 < missing <= len(ends) else 0.0

    def start(self, names: Collection[str]) -> None:
        """These run from now on."""
        if self._limit is not None:
            self._running |= self._limit.hosts.intersection(names)

    def claim(self, names: Collection[str], until: float = NEVER) -> None:
        """A job waits to run on these: nobody behind takes their places, unless it ends in `until` seconds."""
        if self._limit is not None:
            for name in self._limit.hosts.intersection(names):
                self._claimed[name] = min(until, self._claimed.get(name, math.inf))

    def end(self, spare: Iterable[Host]) -> list[str]:
        """Choose of the hosts `spare`, in this order, those that must be powered off before what is claimed fits."""
        if self._limit is None:
            return []
        ended = []
        for host in spare:
            if len((self._running - self._ending) | self._claimed.keys()) <= self._limit.running:
                break
            if (
                host.name in self._running - self._ending - self._claimed.keys()
                and host.health is not Health.MAINTENANCE
            ):
                self._ending.add(host.name)
                ended.append(host.name)
        return ended

    def told(self) -> str:
        """Who has the places, for people."""
        running = self._limit.running if self._limit is not None else 0
        most = f"{running} hosts run" if running > 1 else "one host runs"
        return f"at most {most} at one time (now {', '.join(sorted(self._running)) or 'none'})"
