"""The hosts of a lab, found by what they offer: who can serve a requirement is not worked out at every decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from lab.hosts.model import Health, Host, HostState, Requirement

_REMEMBERED = 4096
"""Requirements whose hosts are remembered."""


class Fleet:
    """Hosts by name. Putting one costs what depends on it: nothing but a look-up when only its state has changed."""

    def __init__(self, hosts: Iterable[Host] = ()) -> None:
        self._hosts: dict[str, Host] = {}
        self._usable: dict[str, Host] = {}
        self._free: dict[str, Host] = {}
        self._able: dict[Requirement, set[str]] = {}
        self._ranked: dict[Requirement, list[str]] = {}
        self._sorted: list[Host] | None = None
        self._sites: frozenset[str] | None = None
        self.generation = 0
        """Grows when a host comes, goes, offers something else, or gets in or out of use."""
        for host in hosts:
            self.put(host)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """All of them."""
        return self._hosts

    @property
    def usable(self) -> Mapping[str, Host]:
        """Those that may be used once they are free."""
        return self._usable

    @property
    def free(self) -> Mapping[str, Host]:
        """Those in use that nobody has."""
        return self._free

    def put(self, host: Host) -> None:
        """A host came, or stands otherwise."""
        before = self._hosts.get(host.name)
        self._hosts[host.name] = host
        self._sorted = None
        usable = host.usable()
        if usable:
            self._usable[host.name] = host
        else:
            self._usable.pop(host.name, None)
        if usable and host.state is HostState.FREE:
            self._free[host.name] = host
        else:
            self._free.pop(host.name, None)
        if before is None or _offer(before) != _offer(host):
            for requirement, names in self._able.items():
                (names.add if requirement.matches(host) else names.discard)(host.name)
            self._renew()
        elif before.usable() != usable:
            self._renew()

    def drop(self, name: str) -> None:
        """A host left the lab."""
        if self._hosts.pop(name, None) is not None:
            self._usable.pop(name, None)
            self._free.pop(name, None)
            for names in self._able.values():
                names.discard(name)
            self._sorted = None
            self._renew()

    def able(self, requirement: Requirement) -> AbstractSet[str]:
        """The names of the hosts that match, however they stand."""
        found = self._able.get(requirement)
        if found is None:
            if len(self._able) >= _REMEMBERED:
                self._able.clear()
                self._ranked.clear()
            found = self._able[requirement] = {name for name, host in self._hosts.items() if requirement.matches(host)}
        return found

    def ranked(self, requirement: Requirement) -> Sequence[str]:
        """The same, sorted."""
        found = self._ranked.get(requirement)
        if found is None:
            found = self._ranked[requirement] = sorted(self.able(requirement))
        return found

    def everyone(self) -> Sequence[Host]:
        """All hosts by name."""
        if self._sorted is None:
            self._sorted = [host for _name, host in sorted(self._hosts.items())]
        return self._sorted

    def sites(self) -> AbstractSet[str]:
        """Where hosts stand."""
        if self._sites is None:
            self._sites = frozenset(host.site for host in self._hosts.values())
        return self._sites

    def _renew(self) -> None:
        self.generation += 1
        self._ranked.clear()
        self._sites = None


def _offer(host: Host) -> tuple[object, ...]:
    return host.arch, host.flags, host.site, host.properties, host.health is Health.BURN_IN
