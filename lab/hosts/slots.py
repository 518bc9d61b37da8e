"""How many hosts may run at one time: on a small machine fewer than the lab has. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lab.hosts.model import Health, Host, HostState


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
        self._claimed: set[str] = set()

    @property
    def unlimited(self) -> bool:
        """Whether all hosts may run at once."""
        return self._limit is None

    def possible(self, names: Collection[str]) -> bool:
        """Whether these hosts may ever run together."""
        return self._limit is None or len(self._limit.hosts.intersection(names)) <= self._limit.running

    def free_for(self, names: Collection[str]) -> bool:
        """Whether these hosts may run from now on, without taking what is claimed."""
        if self._limit is None:
            return True
        new = self._limit.hosts.intersection(names) - self._running
        return not new or len(self._running | self._claimed | new) <= self._limit.running

    def start(self, names: Collection[str]) -> None:
        """These run from now on."""
        if self._limit is not None:
            self._running |= self._limit.hosts.intersection(names)

    def claim(self, names: Collection[str]) -> None:
        """A job waits to run on these: nobody behind it may take their places."""
        if self._limit is not None:
            self._claimed |= self._limit.hosts.intersection(names)

    def end(self, spare: Iterable[Host]) -> list[str]:
        """Choose of the hosts `spare`, in this order, those that must be powered off before what is claimed fits."""
        if self._limit is None:
            return []
        ended = []
        for host in spare:
            if len((self._running - self._ending) | self._claimed) <= self._limit.running:
                break
            if host.name in self._running - self._ending - self._claimed and host.health is not Health.MAINTENANCE:
                self._ending.add(host.name)
                ended.append(host.name)
        return ended

    def told(self) -> str:
        """Who has the places, for people."""
        running = self._limit.running if self._limit is not None else 0
        most = f"{running} hosts run" if running > 1 else "one host runs"
        return f"at most {most} at one time (now {', '.join(sorted(self._running)) or 'none'})"
