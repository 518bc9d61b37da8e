"""Which hosts a request gets: the cheapest combination, found without trying all of them. Pure."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lab.hosts.fleet import Fleet
from lab.hosts.model import Health, Host, Requirement
from lab.hosts.request import Kind, Request, RoleRequest, kind_of

Fits = Callable[[Collection[str]], bool]
"""Whether hosts, by their names, may run together."""


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """When a job of some name last ended on a host, in seconds since the epoch, and whether it failed there."""

    at: float
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a host costs a request; the cheapest combination is taken. Unit: seconds.

    The terms are OSSTest's (`hid_recurse` of its ts-hosts-allocate-Executive), but for the time until a host can be
    had, which is the same for all: only hosts that are free are chosen from.
    """

    set_up: float = 60.0
    """to set up a host that is not in the wanted state"""
    spoil: float = 30.0
    """to overwrite a set-up another job of the flight may still want"""
    wanted: float = 20.0
    """to take the host that others want most; less for others"""
    variation: float = 15.0
    """at most, to take a host on which the job ran of late rather than one on which it did not, or long ago; once it
    has failed somewhere, the other way round"""
    previous_failure: float = 40.0
    """what it is worth to try a job again on a host where it failed last"""
    suspect: float = 600.0
    avoid: float = 86_400.0
    patience: float = 3600.0
    """after keeping hosts for so long in vain, a gang keeps every free one that it could use, whoever ends in time"""


DEFAULT_POLICY: Final = Policy()

_LONG_AGO_D: Final = 90.0
"""A host on which a job never ran counts as one on which it ran so many days ago."""


def is_set_up(request: Request, role: RoleRequest, host: Host) -> bool:
    """Whether the host stands as the role needs it, for the request's own flight."""
    return (
        role.setup_key is not None
        and host.setup_key == role.setup_key
        and request.flight is not None
        and host.setup_flight == request.flight
    )


Past = Callable[[Request], Mapping[str, LastRun]]
"""On which hosts (by name) jobs of the request's name ended of late."""


def _nothing(_request: Request) -> Mapping[str, LastRun]:
    return {}


class Costs:
    """What it costs a request to have a host in a role: the policy's weights, and what the lab knows of the host."""

    def __init__(
        self,
        policy: Policy = DEFAULT_POLICY,
        wanted: Mapping[str, float] = MappingProxyType({}),
        past: Past = _nothing,
        now: float = 0.0,
    ) -> None:
        """`wanted` tells for hosts how much others want them, from 0 (the default) to 1; `now` is since the epoch."""
        self.policy, self.wanted, self._past, self._now = policy, wanted, past, now

    def __call__(self, request: Request, role: RoleRequest, host: Host) -> float:
        """In seconds; less is better, and may be below 0."""
        policy = self.policy
        cost = policy.wanted * self.wanted.get(host.name, 0.0)
        if not is_set_up(request, role, host):
            cost += policy.set_up + (policy.spoil if host.setup_key else 0.0)
        if host.health is Health.SUSPECT:
            cost += policy.suspect
        if host.name in request.avoid:
            cost += policy.avoid
        past = self._past(request)
        return cost + self._variation(past, host) - self._failure(past, host) if past else cost

    def known(self, request: Request) -> set[str]:
        """The hosts that may cost this request something else than others of their line."""
        return {*request.avoid, *self._past(request)}

    def _variation(self, past: Mapping[str, LastRun], host: Host) -> float:
        """OSSTest's 2 h × ln(1 + days), as a part of what it is at most, from what it is for a host never seen."""
        days = max(0.0, self._now - past[host.name].at) / 86_400 if host.name in past else _LONG_AGO_D
        recent = 1 - min(1.0, math.log1p(days) / math.log1p(_LONG_AGO_D))
        return self.policy.variation * (-recent if any(last.failed for last in past.values()) else recent)

    def _failure(self, past: Mapping[str, LastRun], host: Host) -> float:
        if host.name in past:
            return self.policy.previous_failure if past[host.name].failed else 0.0
        return 0.0


_Place = tuple[str | None, str | None]
"""Hosts of one site (None: any) that have one `equiv-` flag (None: whatever they have)."""


class Pool:
    """Hosts to choose from, in lines of those that cost any request the same (but for how much others want them),
    unless it knows them by name.
    """

    def __init__(
        self, fleet: Fleet, hosts: Mapping[str, Host], wanted: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self._fleet, self._wanted = fleet, wanted
        self.hosts = dict(hosts)
        self._lines: dict[tuple[Requirement, _Place], list[list[str]]] = {}
        self._alike: dict[Requirement, set[str]] = {}
        self._ready: dict[tuple[str, int | None], list[str]] | None = None

    def remove(self, name: str) -> None:
        """The host is to be had no more."""
        self.hosts.pop(name, None)

    def set_up_for(self, flight: int | None, setup_key: str) -> list[str]:
        """The hosts that stand so for the flight."""
        if self._ready is None:
            self._ready = {}
            for host in self.hosts.values():
                if host.setup_key is not None:
                    self._ready.setdefault((host.setup_key, host.setup_flight), []).append(host.name)
        return [name for name in self._ready.get((setup_key, flight), ()) if name in self.hosts]

    def lines(self, requirement: Requirement, place: _Place) -> list[list[str]]:
        """Names of hosts that match, the cheapest of each line first. Some may be gone."""
        found = self._lines.get((requirement, place))
        if found is None:
            site, flag = place
            lines: dict[tuple[bool, bool], list[str]] = {}
            for name in self._matching(requirement):
                host = self.hosts[name]
                if site in (None, host.site) and (flag is None or flag in host.flags):
                    lines.setdefault((host.health is Health.SUSPECT, host.setup_key is not None), []).append(name)
            found = self._lines[requirement, place] = list(lines.values())
            for line in found:
                line.sort(key=self._rank)
        return found

    def has(self, name: str, requirement: Requirement, place: _Place) -> bool:
        """Whether the host is one of `lines`."""
        rank = self._rank(name)
        for line in self.lines(requirement, place):
            at = bisect.bisect_left(line, rank, key=self._rank)
            if at < len(line) and line[at] == name:
                return True
        return False

    def _rank(self, name: str) -> tuple[float, str]:
        return self._wanted.get(name, 0.0), name

    def _matching(self, requirement: Requirement) -> Iterable[str]:
        able = self._fleet.able(requirement)
        if len(able) < len(self.hosts):
            return [name for name in able if name in self.hosts]
        return [name for name in self.hosts if name in able]

    def places(self, request: Request, near: Collection[Host] | None = None) -> Iterator[dict[str, _Place]]:
        """For the names of the request's equivalences (and "" for its other roles), where their hosts could all be.

        With `near`, only what one of those hosts is alike to.
        """
        sites: Sequence[str | None] = [None]
        if len(request.roles) > 1 and len(self._fleet.sites()) > 1:
            sites = sorted(self._fleet.sites())
        counts: dict[str, int] = {}
        for role in request.roles:
            if role.equivalent:
                counts[role.equivalent] = counts.get(role.equivalent, 0) + 1
        names = sorted(name for name, count in counts.items() if count > 1)
        if not names:
            for site in sites:
                yield {"": (site, None)}
            return
        flags = [
            set.intersection(*(self._flags_of(role.requirement) for role in request.roles if role.equivalent == name))
            for name in names
        ]
        if near is not None and len(names) == 1:
            flags[0] &= frozenset().union(*(host.flags for host in near))
        for site in sites:
            for chosen in itertools.product(*map(sorted, flags)):
                yield {"": (site, None)} | {name: (site, flag) for name, flag in zip(names, chosen, strict=True)}

    def _flags_of(self, requirement: Requirement) -> set[str]:
        """The `equiv-` flags of hosts that match, or did."""
        found = self._alike.get(requirement)
        if found is None:
            flags: set[str] = set()
            for name in self._matching(requirement):
                flags |= self.hosts[name].flags
            found = self._alike[requirement] = {flag for flag in flags if flag.startswith("equiv-")}
        return found


def cheapest(
    request: Request, pool: Pool, costs: Costs, in_time: Callable[[str], bool] | None = None
) -> dict[str, Host] | None:
    """The cheapest distinct, mutually equivalent hosts of one site, or None. Ties: first by name.

    `in_time` tells whether a host is to be had for long enough.
    """
    best: tuple[float, list[str]] | None = None
    for places in pool.places(request):
        able: list[list[tuple[float, str]]] = []
        for role in request.roles:
            place = places.get(role.equivalent or "", places[""])
            able.append(_first(request, role, pool, place, costs, in_time))
            if not able[-1]:
                break
        else:
            for chosen in _distinct(able):
                found = (sum(cost for cost, _name in chosen), [name for _cost, name in chosen])
                if best is None or found < best:
                    best = found
    if best is None:
        return None
    return {role.role: pool.hosts[name] for role, name in zip(request.roles, best[1], strict=True)}


def _first(
    request: Request,
    role: RoleRequest,
    pool: Pool,
    place: _Place,
    costs: Costs,
    in_time: Callable[[str], bool] | None,
) -> list[tuple[float, str]]:
    """The cheapest hosts for a role, as many as the request has roles: the others take all but one at most."""
    most = len(request.roles)
    known = costs.known(request)
    if role.setup_key is not None:
        known.update(pool.set_up_for(request.flight, role.setup_key))
    found: list[tuple[float, str]] = []
    for line in pool.lines(role.requirement, place):
        taken = 0
        gone = 0
        for name in line:
            if name not in pool.hosts:
                gone += 1
                continue
            if name in known or (in_time is not None and not in_time(name)):
                continue
            found.append((costs(request, role, pool.hosts[name]), name))
            taken += 1
            if taken == most:
                break
        if gone > 16:
            line[:] = [name for name in line if name in pool.hosts]
    for name in known:
        host = pool.hosts.get(name)
        if host is None or (in_time is not None and not in_time(name)):
            continue
        if pool.has(name, role.requirement, place):
            found.append((costs(request, role, host), name))
    found.sort()
    return found[:most]


def _distinct(able: Sequence[Sequence[tuple[float, str]]]) -> Iterator[list[tuple[float, str]]]:
    if not able:
        yield []
        return
    for before in _distinct(able[:-1]):
        taken = {name for _cost, name in before}
        for one in able[-1]:
            if one[1] not in taken:
                yield [*before, one]


def cheapest_fitting(request: Request, hosts: Collection[Host], costs: Costs, fits: Fits) -> dict[str, Host] | None:
    """The cheapest combination that also `fits`: all are tried, so it is for the few hosts of a limited lab."""
    best: tuple[float, list[str], dict[str, Host]] | None = None
    for chosen in _combinations(request.roles, sorted(hosts, key=lambda host: host.name)):
        cost = sum(costs(request, role, chosen[role.role]) for role in request.roles)
        names = [chosen[role.role].name for role in request.roles]
        if fits(names) and (best is None or (cost, names) < best[:2]):
            best = (cost, names, chosen)
    return best[2] if best else None


def _combinations(roles: Sequence[RoleRequest], hosts: Sequence[Host]) -> Iterator[dict[str, Host]]:
    if not roles:
        yield {}
        return
    *before, last = roles
    for chosen in _combinations(before, hosts):
        for host in hosts:
            if any(host.name == other.name or host.site != other.site for other in chosen.values()):
                continue
            if not last.requirement.matches(host):
                continue
            if last.equivalent and not _equivalent(last, host, before, chosen):
                continue
            yield {**chosen, last.role: host}


def _equivalent(role: RoleRequest, host: Host, before: Sequence[RoleRequest], chosen: Mapping[str, Host]) -> bool:
    peers = [chosen[other.role] for other in before if other.equivalent == role.equivalent]
    common = {flag for flag in host.flags if flag.startswith("equiv-")}
    for peer in peers:
        common &= peer.flags
    return bool(common) or not peers


def earliest(
    request: Request, pool: Pool, at: Callable[[str], float], free: Collection[str]
) -> tuple[float, list[str]] | None:
    """When hosts for all roles can be had at one time, if they must be alike then with one of `free`, and which.

    `at` tells when one can be had (infinity: never). None when they never can. Ties: the most that are free, by name.
    """
    best: tuple[float, int, list[str]] | None = None
    for places in pool.places(request, [pool.hosts[name] for name in free if name in pool.hosts]):
        parts = [(role.requirement, places.get(role.equivalent or "", places[""])) for role in request.roles]
        firsts = {
            part: heapq.nsmallest(len(parts), ((at(name), name) for line in pool.lines(*part) for name in line))
            for part in set(parts)
        }
        best = _earlier(best, _distinct([firsts[part] for part in parts]), free)
    return None if best is None else (best[0], best[2])


def earliest_fitting(
    request: Request, hosts: Collection[Host], at: Callable[[str], float], fits: Fits
) -> tuple[float, list[str]] | None:
    """The same where only hosts that `fits` may run together."""
    combinations = (
        [(at(host.name), host.name) for host in chosen.values()]
        for chosen in _combinations(request.roles, sorted(hosts, key=lambda host: host.name))
    )
    fitting = (chosen for chosen in combinations if fits([name for _at, name in chosen]))
    best = _earlier(None, fitting, ())
    return None if best is None else (best[0], best[2])


def _earlier(
    best: tuple[float, int, list[str]] | None, combinations: Iterable[list[tuple[float, str]]], free: Collection[str]
) -> tuple[float, int, list[str]] | None:
    for chosen in combinations:
        begins = max((at for at, _name in chosen), default=0.0)
        found = (begins, sum(name not in free for _at, name in chosen), [name for _at, name in chosen])
        if begins < math.inf and (best is None or found < best):
            best = found
    return best


class Possible:
    """Whether requests could be served at all, were all usable hosts free; remembered by kind."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._generation = -1
        self._known: dict[Kind, bool] = {}
        self._pool = Pool(fleet, {})

    @property
    def pool(self) -> Pool:
        """The usable hosts; how they stood at some time."""
        if self._generation != self._fleet.generation:
            usable = {name: host for name, host in self._fleet.hosts.items() if host.usable()}
            self._known, self._pool = {}, Pool(self._fleet, usable)
            self._generation = self._fleet.generation
        return self._pool

    def __call__(self, request: Request) -> bool:
        """Whether some usable hosts of the lab together are what it asks for."""
        pool = self.pool
        kind = kind_of(request)
        if kind not in self._known:
            self._known[kind] = cheapest(request, pool, Costs()) is not None
        return self._known[kind]
