"""The planner: which waiting jobs get which hosts now, and why the others wait. Pure: the same snapshot, the same plan.

Requests are served by priority, then age. A job gets all its hosts at one time or none (gang allocation). A job that
must wait keeps the free hosts it could use, so that jobs behind it cannot push it back for ever. Where only so many
hosts may run at once, it keeps its places among them, too, and hosts that stand ready are powered off for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from lab.errors import ConfigError
from lab.hosts.durations import UNKNOWN, Estimate
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.slots import Limit, Slots

ANY_HOST: Final = Requirement()

_NAMED: Final = 8
"""Hosts that a reason names."""

Fits = Callable[[Collection[str]], bool]
"""Whether hosts, by their names, may run together."""


def _any(_names: Collection[str]) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class RoleRequest:
    """One host asked for: `requirement` must match; roles with one `equivalent` name need a common `equiv-*` flag.

    `setup_key` names the set-up the role needs (None: always from scratch); `flight` the flight it may be reused in.
    """

    role: str
    requirement: Requirement = ANY_HOST
    equivalent: str | None = None
    setup_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A waiting job: lower `priority` and then lower `order` go first; hosts in `avoid` are taken only if need be.

    A job without hosts runs on the controller, in a `lane` of which only so many places are free. `submitted` is in
    seconds since the epoch; `estimate` says how long it will hold its hosts.
    """

    id: str
    order: int
    roles: tuple[RoleRequest, ...]
    flight: int | None = None
    priority: int = 0
    avoid: frozenset[str] = frozenset()
    lane: str = ""
    tenant: str = ""
    submitted: float = 0.0
    estimate: Estimate = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Start this job now on these hosts (role -> host); `reused` are the roles whose host is set up already."""

    request: str
    hosts: Mapping[str, str]
    reused: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a job does not start now; one line for people."""

    request: str
    reason: str
    possible: bool = True
    """False when no combination of the lab's usable hosts could ever serve it"""
    for_place: bool = False
    """True when its hosts are there, but too many would run at once"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start now, who waits, and which free hosts to power off so that somebody who waits can start."""

    start: tuple[Assignment, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    power_off: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a host costs a request; the cheapest combination is taken. Unit: seconds."""

    set_up: float = 60.0
    """to set up a host that is not in the wanted state"""
    spoil: float = 30.0
    """to overwrite a set-up another job of the flight may still want"""
    suspect: float = 600.0
    avoid: float = 86_400.0


DEFAULT_POLICY: Final = Policy()


def plan(
    hosts: Iterable[Host],
    requests: Iterable[Request],
    policy: Policy = DEFAULT_POLICY,
    lanes: Mapping[str, int] = MappingProxyType({}),
    limit: Limit | None = None,
    left: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """Decide what starts now; `lanes` tells the free places of each. The order of the inputs does not matter.

    `left` is in how many seconds a host is promised to somebody else: a job starts on it only if nine times out of ten
    it ends before that.
    """
    everyone = sorted(hosts, key=lambda host: host.name)
    queue = _Queue(everyone, policy, Slots(limit, everyone), left)
    requests = list(requests)
    _fill_lanes([request for request in requests if request.lane], lanes, queue.start, queue.waiting)
    for group in _by_flight(request for request in requests if not request.lane):
        # Hosts that stand ready for a job of this flight go to it first: a sister job ahead of it would have to set
        # them up anew. Jobs of other flights are never overtaken.
        reusing = {request.id for request in group if queue.take(request, only_reused=True)}
        for place, request in enumerate(group):
            if request.id not in reusing and not queue.take(request):
                queue.wait(request, behind=group[place + 1 :])
            queue.ahead += 1
    return Plan(start=tuple(queue.start), waiting=tuple(queue.waiting), power_off=tuple(sorted(queue.power_off)))


class _Queue:
    """A plan in the making: which hosts are still free, and what was decided for the requests so far."""

    def __init__(self, everyone: Sequence[Host], policy: Policy, slots: Slots, left: Mapping[str, float]) -> None:
        self.everyone, self.policy, self.slots, self.left = everyone, policy, slots, left
        self.usable = [host for host in everyone if host.usable()]
        self.free = {host.name: host for host in self.usable if host.state is HostState.FREE}
        self.start: list[Assignment] = []
        self.waiting: list[Waiting] = []
        self.power_off: list[str] = []
        self.ahead = 0
        # Where no limit is, the choice of hosts can be found without trying all combinations.
        self.free_for: Fits = _any if slots.unlimited else slots.free_for
        self.possible: Fits = _any if slots.unlimited else slots.possible

    def take(self, request: Request, *, only_reused: bool = False) -> bool:
        """Give a request its hosts out of the free ones, if it can be served now."""
        chosen = _cheapest(request, self._in_time(request), self.policy, self.free_for)
        if chosen is None:
            return False
        reused = frozenset(role.role for role in request.roles if _is_set_up(request, role, chosen[role.role]))
        if only_reused and len(reused) < len(request.roles):
            return False
        for host in chosen.values():
            del self.free[host.name]
        hosts = MappingProxyType({role: host.name for role, host in chosen.items()})
        self.slots.start(hosts.values())
        self.start.append(Assignment(request=request.id, hosts=hosts, reused=reused))
        return True

    def _sometime(self, request: Request) -> dict[str, Host] | None:
        """Hosts that could serve the request once they are free; where all may run at once, any such hosts will do."""
        if not self.slots.unlimited:
            return _cheapest(request, self.usable, self.policy, self.possible)
        for some in (16, 128, len(self.usable)):
            if chosen := _cheapest(request, self.usable[:some], self.policy):
                return chosen
        return None

    def _in_time(self, request: Request) -> list[Host]:
        """The free hosts that are not promised to somebody else before the request will be done with them."""
        if not self.left:
            return list(self.free.values())
        needed = request.estimate.p90_s
        return [host for name, host in self.free.items() if self.left.get(name, needed) >= needed]

    def wait(self, request: Request, behind: Sequence[Request]) -> None:
        """Say why a request waits, and keep for it what it could use: else a gang might wait for ever."""
        ready = _cheapest(request, self._in_time(request), self.policy, self.possible)
        chosen = ready or self._sometime(request)
        if chosen is None:
            reason = explain_impossible(request, self.everyone, self.slots.possible)
            self.waiting.append(Waiting(request=request.id, reason=reason, possible=False))
            return
        self.slots.claim([host.name for host in chosen.values()])
        if ready is None:
            reason = _waiting_reason(request, self.usable, self.ahead)
        else:  # its hosts are there, but too many would run
            self._make_room(behind)
            reason = f"waiting for a place: {self.slots.told()}{place_told(self.ahead)}"
        self.waiting.append(Waiting(request=request.id, reason=reason, for_place=ready is not None))
        for name in [host.name for host in self._in_time(request) if _wanted(request, host)]:
            del self.free[name]

    def _make_room(self, behind: Sequence[Request]) -> None:
        """Have free hosts powered off; first those that none of the requests `behind` could use as they stand."""

        def useful(host: Host) -> bool:
            return any(_is_set_up(request, role, host) for request in behind for role in request.roles)

        # What a job ahead has taken or keeps is not free any more; what nobody may use is for nobody.
        idle = [host for host in self.everyone if host.state is HostState.FREE]
        spare = [host for host in idle if host.name in self.free or not host.usable()]
        ended = self.slots.end(sorted(spare, key=lambda host: (useful(host), host.name)))
        self.power_off += ended
        for name in ended:
            self.free.pop(name, None)


def _fill_lanes(
    requests: Iterable[Request], lanes: Mapping[str, int], start: list[Assignment], waiting: list[Waiting]
) -> None:
    """Start what finds a place in its lane, in the order of the queue."""
    free = dict(lanes)
    queued: dict[str, int] = {}
    for request in sorted(requests, key=lambda request: (request.priority, request.order, request.id)):
        if free.get(request.lane, 0) > 0:
            free[request.lane] -= 1
            start.append(Assignment(request=request.id, hosts=MappingProxyType({})))
            continue
        ahead = queued.get(request.lane, 0)
        place = f"; {ahead} ahead of it" if ahead else ""
        waiting.append(Waiting(request=request.id, reason=f"waiting for another {request.lane} to end{place}"))
        queued[request.lane] = ahead + 1


def _by_flight(requests: Iterable[Request]) -> list[list[Request]]:
    """The queue in order, neighbours of one priority and flight put together."""
    queue = sorted(requests, key=lambda request: (request.priority, request.order, request.id))
    grouped = itertools.groupby(queue, key=lambda request: (request.priority, request.flight or request.id))
    return [list(group) for _key, group in grouped]


def check_possible(request: Request, hosts: Iterable[Host], limit: Limit | None = None) -> None:
    """Raise `ConfigError`, naming the nearest host and what it lacks, when no hosts of the lab could ever serve it.

    Health does not matter here: a quarantined host may come back.
    """
    burn_in = any(role.requirement.for_burn_in for role in request.roles)
    health = Health.BURN_IN if burn_in else Health.GOOD
    everyone = sorted((replace(host, health=health) for host in hosts), key=lambda host: host.name)
    fits = Slots(limit, everyone).possible
    if _cheapest(request, everyone, DEFAULT_POLICY, fits) is None:
        raise ConfigError(explain_impossible(request, everyone, fits), hint="see `lab host list`, or change lab.toml")


def explain_impossible(request: Request, hosts: Sequence[Host], fits: Fits = _any) -> str:
    """Say which role no host can take, and what the nearest host lacks; `fits` tells which may run together."""
    for role in request.roles:
        able = [host for host in hosts if role.requirement.offered_by(host)]
        if not able:
            if not hosts:
                return f"{role.role}: the lab has no hosts"
            nearest = min(hosts, key=lambda host: (len(role.requirement.missing(host)), host.name))
            lacks = "; ".join(role.requirement.missing(nearest))
            asked = role.requirement.text
            return f"{role.role}: no host matches {asked!r}: the nearest is {nearest.name}, which lacks {lacks}"
        if not any(host.usable() and role.requirement.matches(host) for host in able):
            states = ", ".join(f"{host.name} is {host.health.value}" for host in able)
            return f"{role.role}: every host that could serve is out of use: {states}"
    together = f"needs {len(request.roles)} hosts at one time"
    chosen = _cheapest(request, hosts, DEFAULT_POLICY)
    if chosen is not None and not fits([host.name for host in chosen.values()]):
        return f"{together}, which is more than the lab lets run at once"
    return f"{together} that fit together; the lab does not have them"


def _waiting_reason(request: Request, usable: Sequence[Host], ahead: int) -> str:
    busy = (host.name for host in usable if host.state is not HostState.FREE and _wanted(request, host))
    named = list(itertools.islice(busy, _NAMED + 1))
    if named:
        others = " or others" if len(named) > _NAMED else ""
        return f"waiting for {', '.join(named[:_NAMED])}{others}{place_told(ahead)}"
    return f"waiting for a host kept for a job ahead of it{place_told(ahead)}"


def place_told(ahead: int) -> str:
    """The end of a reason: how many are served before."""
    return f"; {ahead} ahead of it" if ahead else ""


def _wanted(request: Request, host: Host) -> bool:
    return any(role.requirement.matches(host) for role in request.roles)


def _is_set_up(request: Request, role: RoleRequest, host: Host) -> bool:
    return (
        role.setup_key is not None
        and host.setup_key == role.setup_key
        and request.flight is not None
        and host.setup_flight == request.flight
    )


def _cost(request: Request, role: RoleRequest, host: Host, policy: Policy) -> float:
    cost = 0.0
    if not _is_set_up(request, role, host):
        cost += policy.set_up + (policy.spoil if host.setup_key else 0.0)
    if host.health is Health.SUSPECT:
        cost += policy.suspect
    if host.name in request.avoid:
        cost += policy.avoid
    return cost


def _cheapest(request: Request, hosts: Sequence[Host], policy: Policy, fits: Fits = _any) -> dict[str, Host] | None:
    """The cheapest combination of distinct, mutually equivalent hosts that `fits`, or None. Ties: first by name."""
    best: tuple[float, list[str], dict[str, Host]] | None = None
    if fits is _any:
        hosts = _worth_trying(request, hosts, policy)
    for chosen in _combinations(request.roles, hosts):
        cost = sum(_cost(request, role, chosen[role.role], policy) for role in request.roles)
        names = [chosen[role.role].name for role in request.roles]
        if not fits(names):
            continue
        if best is None or (cost, names) < best[:2]:
            best = (cost, names, chosen)
    return best[2] if best else None


def _worth_trying(request: Request, hosts: Sequence[Host], policy: Policy) -> list[Host]:
    """The hosts among which the cheapest combination is: of each role and `equiv-` flag, as many as there are roles.

    The other roles can take away at most all but one of them, so there is no use for any that costs more.
    """
    kept: dict[str, Host] = {}
    for role in request.roles:
        matching = [host for host in hosts if role.requirement.matches(host)]
        able = [(_cost(request, role, host, policy), host.name, host) for host in matching]
        able.sort(key=lambda one: one[:2])
        counts: dict[str, int] = {}
        for _cost_of_it, name, host in able:
            groups = [flag for flag in host.flags if flag.startswith("equiv-")] if role.equivalent else []
            for group in groups or [""]:
                counts[group] = counts.get(group, 0) + 1
                if counts[group] <= len(request.roles):
                    kept[name] = host
    return [host for _name, host in sorted(kept.items())]


def _combinations(roles: Sequence[RoleRequest], hosts: Sequence[Host]) -> Iterator[dict[str, Host]]:
    if not roles:
        yield {}
        return
    *before, last = roles
    for chosen in _combinations(before, hosts):
        taken = {host.name for host in chosen.values()}
        for host in hosts:
            if host.name in taken or not last.requirement.matches(host):
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
