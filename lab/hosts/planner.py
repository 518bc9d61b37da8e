"""The planner: which waiting jobs get which hosts now, and why the others wait. Pure: the same snapshot, the same plan.

Requests are served by priority, then age. A job gets all its hosts at one time or none (gang allocation). A gang that
must wait is promised the hosts that it can have first; until then only jobs that will have ended by then use those of
them that are free (EASY backfilling: Lifka 1995). Where only so many hosts may run at once, it keeps its places among
them, too, and hosts that stand ready are powered off for it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from lab.errors import ConfigError
from lab.hosts.choice import (
    DEFAULT_POLICY,
    Costs,
    Fits,
    Policy,
    Pool,
    Possible,
    cheapest,
    cheapest_fitting,
    earliest,
    earliest_fitting,
    is_set_up,
)
from lab.hosts.fleet import Fleet
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.request import Kind, Request, RoleRequest, kind_of
from lab.hosts.slots import NEVER, Limit, Slots

__all__ = [
    "DEFAULT_POLICY",
    "Assignment",
    "Fits",
    "Plan",
    "Policy",
    "Request",
    "RoleRequest",
    "Waiting",
    "check_possible",
    "explain_impossible",
    "place_told",
    "plan",
    "plan_in_turn",
]

_NAMED: Final = 8
"""Hosts that a reason names."""


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
    """What to start now, who waits, and which free hosts to power off so that somebody who waits can start.

    `keeping` are the requests for which hosts or places are kept until they can begin.
    """

    start: tuple[Assignment, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    power_off: tuple[str, ...] = ()
    keeping: tuple[str, ...] = ()


def plan(
    hosts: Iterable[Host],
    requests: Iterable[Request],
    policy: Policy = DEFAULT_POLICY,
    lanes: Mapping[str, int] = MappingProxyType({}),
    limit: Limit | None = None,
    left: Mapping[str, float] = MappingProxyType({}),
    back: Callable[[str], float] | None = None,
    held: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """Decide what starts now; `lanes` tells the free places of each. The order of the inputs does not matter.

    `left` is in how many seconds a host is promised to somebody else: a job starts on it only if nine times out of ten
    it ends before that. `back` tells in how many seconds a host that somebody has is expected back; without it, a gang
    that waits keeps all free hosts that it could use. `held` is for how many seconds gangs (by id) have kept hosts.
    """
    fleet = Fleet(hosts)
    queue = sorted(requests, key=lambda request: (request.priority, request.order, request.id))
    return plan_in_turn(
        fleet,
        [request for request in queue if not request.lane],
        without_hosts=[request for request in queue if request.lane],
        possible=Possible(fleet),
        costs=Costs(policy),
        lanes=lanes,
        limit=limit,
        left=left,
        back=back,
        held=held,
    )


def plan_in_turn(
    fleet: Fleet,
    turns: Iterable[Request],
    *,
    possible: Possible,
    without_hosts: Iterable[Request] = (),
    costs: Costs | None = None,
    lanes: Mapping[str, int] = MappingProxyType({}),
    limit: Limit | None = None,
    left: Mapping[str, float] = MappingProxyType({}),
    back: Callable[[str], float] | None = None,
    held: Mapping[str, float] = MappingProxyType({}),
    whole: bool = True,
    shortest: float = 0.0,
    spared: Callable[[Request], AbstractSet[str]] | None = None,
) -> Plan:
    """The same for requests that are in turn already, those `without_hosts` apart.

    Unless the `whole` plan is wanted, no further ones are looked at once there is no host left to be had by one that
    takes `shortest` seconds (nine times out of ten), and of each kind only the first one that waits is told.
    `spared` are hosts that a request for one host leaves to those behind, if they can use them. `possible` remembers
    from one plan of a fleet to the next.
    """
    gave_way: list[Request] = []
    queue = _Queue(fleet, costs or Costs(), limit, left, back, held, possible, whole)
    _fill_lanes(without_hosts, lanes, queue.start, queue.waiting)
    # Neighbours of one priority and flight are put together.
    for _key, neighbours in itertools.groupby(turns, key=lambda one: (one.priority, one.flight or one.id)):
        group = list(neighbours)
        # Hosts that stand ready for a job of this flight go to it first: a sister job ahead of it would have to set
        # them up anew. Jobs of other flights are never overtaken.
        reusing = {request.id for request in group if queue.stands_ready(request) and queue.take(request, reused=True)}
        for place, request in enumerate(group):
            if request.id in reusing:
                pass
            elif spared is not None and len(request.roles) == 1 and (others := spared(request)):
                if not queue.take_from(request, but=others):
                    gave_way.append(request)
            elif not queue.take(request):
                queue.wait(request, behind=group[place + 1 :])
            queue.ahead += 1
        if not whole and all(queue.left.get(name, math.inf) < shortest for name in queue.pool.hosts):
            break
    for request in gave_way:
        if not queue.take(request):
            queue.wait(request, behind=())
    return Plan(
        start=tuple(queue.start),
        waiting=tuple(queue.waiting),
        power_off=tuple(sorted(queue.power_off)),
        keeping=tuple(queue.keeping),
    )


class _Queue:
    """A plan in the making: which hosts are still free, and what was decided for the requests so far."""

    def __init__(
        self,
        fleet: Fleet,
        costs: Costs,
        limit: Limit | None,
        left: Mapping[str, float],
        back: Callable[[str], float] | None,
        held: Mapping[str, float],
        possible: Possible,
        whole: bool,
    ) -> None:
        self.fleet, self.costs, self.back, self.held, self.possible = fleet, costs, back, held, possible
        self.whole = whole
        self.left = dict(left)
        self.slots = Slots(limit, fleet.everyone() if limit else ())
        self.pool = Pool(fleet, fleet.free, costs.wanted)
        self.start: list[Assignment] = []
        self.waiting: list[Waiting] = []
        self.power_off: list[str] = []
        self.ahead = 0
        self.keeping: list[str] = []
        self.told: set[Kind] = set()
        """kinds of which one waits"""
        self.promised: set[str] = set()
        """hosts that a gang ahead waits for"""
        self.refused: dict[Kind, float] = {}
        """the shortest request (p90) of each kind for which there are no hosts: nor are there for longer ones"""

    def stands_ready(self, request: Request) -> bool:
        """Whether hosts stand set up for each of its roles."""
        return all(
            role.setup_key is not None and self.pool.set_up_for(request.flight, role.setup_key)
            for role in request.roles
        )

    def take(self, request: Request, *, reused: bool = False) -> bool:
        """Give a request its hosts out of the free ones, if it can be served now (`reused`: by those that stand)."""
        kind, length = kind_of(request), request.estimate.p90_s
        if self.refused.get(kind, math.inf) <= length:
            return False
        chosen = self._choose(request)
        if chosen is None:
            self.refused[kind] = length
            return False
        if reused and not all(is_set_up(request, role, chosen[role.role]) for role in request.roles):
            return False
        self._start(request, chosen)
        return True

    def _start(self, request: Request, chosen: Mapping[str, Host]) -> None:
        standing = frozenset(role.role for role in request.roles if is_set_up(request, role, chosen[role.role]))
        for host in chosen.values():
            self.pool.remove(host.name)
        hosts = MappingProxyType({role: host.name for role, host in chosen.items()})
        self.slots.start(hosts.values())
        self.start.append(Assignment(request=request.id, hosts=hosts, reused=standing))

    def take_from(self, request: Request, *, but: AbstractSet[str]) -> bool:
        """Give a request a host, if one can be had now that is not among those left to others."""
        enough = self._for_long_enough(request)
        in_time = lambda name: name not in but and (enough is None or enough(name))  # noqa: E731
        chosen = cheapest(request, self.pool, self.costs, in_time)
        if chosen is not None:
            self._start(request, chosen)
        return chosen is not None

    def _choose(self, request: Request) -> dict[str, Host] | None:
        if self.slots.unlimited:
            return cheapest(request, self.pool, self.costs, self._for_long_enough(request))
        free_for = functools.partial(self.slots.free_for, length_s=request.estimate.p90_s)
        return cheapest_fitting(request, self._in_time(request), self.costs, free_for)

    def _for_long_enough(self, request: Request) -> Callable[[str], bool] | None:
        """Which hosts are not promised to somebody else before the request will be done with them."""
        if not self.left:
            return None
        needed = request.estimate.p90_s
        return lambda name: self.left.get(name, needed) >= needed

    def _in_time(self, request: Request) -> list[Host]:
        """The free hosts that the request can have for long enough."""
        enough = self._for_long_enough(request)
        return [host for name, host in self.pool.hosts.items() if enough is None or enough(name)]

    def wait(self, request: Request, behind: Sequence[Request]) -> None:
        """Say why a request waits, and keep for it what it could use: else a gang might wait for ever."""
        if self.slots.unlimited:
            first = (kind := kind_of(request)) not in self.told
            self.told.add(kind)
            if not first and not self.whole:
                return
            if not self.possible(request):
                self._impossible(request)
                return
            self.waiting.append(Waiting(request=request.id, reason=_waiting_reason(request, self.fleet, self.ahead)))
            # One host that could serve it and that it may have would have been taken; and one promise a kind will do.
            if first and len(request.roles) > 1:
                self._promise(request, ())
            return
        ready = cheapest_fitting(request, self._in_time(request), self.costs, self.slots.possible)
        chosen = ready or cheapest_fitting(request, self._usable(), self.costs, self.slots.possible)
        if chosen is None:
            self._impossible(request)
            return
        names = [host.name for host in chosen.values()]
        if ready is None:
            reason = _waiting_reason(request, self.fleet, self.ahead)
            self._promise(request, names)
        else:  # its hosts are there, but too many would run
            until = self._place_free(request, names)
            self.keeping.append(request.id)
            self.slots.claim(names, until)
            self._make_room(behind)
            reason = f"waiting for a place: {self.slots.told()}{place_told(self.ahead)}"
            self._keep(self._wanted(request), until)
        self.waiting.append(Waiting(request=request.id, reason=reason, for_place=ready is not None))

    def _impossible(self, request: Request) -> None:
        reason = explain_impossible(request, self.fleet.everyone(), self.slots.possible)
        self.waiting.append(Waiting(request=request.id, reason=reason, possible=False))

    def _usable(self) -> list[Host]:
        return [host for host in self.fleet.everyone() if host.usable()]

    def _promise(self, request: Request, chosen: Sequence[str]) -> None:
        """Promise a request that waits the hosts that it can have first; `chosen` are those whose places it claims."""
        wanted = self._wanted(request)
        if self.slots.unlimited and not wanted:
            return
        if self.back is None:
            self.slots.claim(chosen, NEVER)
            self._keep(wanted, NEVER)
        elif (first := self._first_together(request, self.back)) is not None:
            begins, names = first
            if self._impatient(request):
                begins, kept = NEVER, wanted
            else:
                kept = [name for name in names if name in self.pool.hosts]
            self.keeping.append(request.id)
            self.promised.update(names)
            self.slots.claim(names, begins)
            self._keep(kept, begins)

    def _wanted(self, request: Request) -> list[str]:
        """The free hosts that the request could use, and may have for long enough."""
        enough = self._for_long_enough(request)
        able = [self.fleet.able(role.requirement) for role in request.roles]
        return [
            name
            for name in self.pool.hosts
            if any(name in names for names in able) and (enough is None or enough(name))
        ]

    def _keep(self, names: Iterable[str], until: float) -> None:
        """Nobody behind has these free hosts, unless it will have ended in `until` seconds."""
        for name in names:
            if until > 0:
                self.left[name] = min(until, self.left.get(name, math.inf))
            else:
                self.pool.remove(name)

    def _impatient(self, request: Request) -> bool:
        return self.held.get(request.id, 0.0) > self.costs.policy.patience

    def _first_together(self, request: Request, back: Callable[[str], float]) -> tuple[float, list[str]] | None:
        """In how many seconds all hosts that a request needs are expected to be there at one time, and which."""
        needed = request.estimate.p90_s

        def at(name: str) -> float:
            if name in self.pool.hosts:
                begins = 0.0
            elif name in self.promised or self.fleet.hosts[name].state is HostState.FREE:
                return math.inf  # somebody ahead gets it
            else:
                begins = max(0.0, back(name))
            return begins if self.left.get(name, math.inf) >= begins + needed else math.inf

        if self.slots.unlimited:
            return earliest(request, self.possible.pool, at, self.pool.hosts)
        return earliest_fitting(request, self._usable(), at, self.slots.possible)

    def _place_free(self, request: Request, names: Sequence[str]) -> float:
        """In how many seconds the places that these hosts need are expected to be free."""
        if self.back is None or self._impatient(request):
            return NEVER
        busy = [host.name for host in self.fleet.everyone() if host.state is not HostState.FREE]
        return self.slots.free_at(names, {name: max(0.0, self.back(name)) for name in busy})

    def _make_room(self, behind: Sequence[Request]) -> None:
        """Have free hosts powered off; first those that none of the requests `behind` could use as they stand."""

        def useful(host: Host) -> bool:
            return any(is_set_up(request, role, host) for request in behind for role in request.roles)

        # What a job ahead has taken or keeps is not free any more; what nobody may use is for nobody.
        idle = [host for host in self.fleet.everyone() if host.state is HostState.FREE]
        spare = [host for host in idle if host.name in self.pool.hosts or not host.usable()]
        ended = self.slots.end(sorted(spare, key=lambda host: (useful(host), host.name)))
        self.power_off += ended
        for name in ended:
            self.pool.remove(name)


def _fill_lanes(
    requests: Iterable[Request], lanes: Mapping[str, int], start: list[Assignment], waiting: list[Waiting]
) -> None:
    """Start what finds a place in its lane, in the order of the queue."""
    free = dict(lanes)
    queued: dict[str, int] = {}
    for request in requests:
        if free.get(request.lane, 0) > 0:
            free[request.lane] -= 1
            start.append(Assignment(request=request.id, hosts=MappingProxyType({})))
            continue
        ahead = queued.get(request.lane, 0)
        place = f"; {ahead} ahead of it" if ahead else ""
        waiting.append(Waiting(request=request.id, reason=f"waiting for another {request.lane} to end{place}"))
        queued[request.lane] = ahead + 1


def check_possible(request: Request, hosts: Iterable[Host], limit: Limit | None = None) -> None:
    """Raise `ConfigError`, naming the nearest host and what it lacks, when no hosts of the lab could ever serve it.

    Health does not matter here: a quarantined host may come back.
    """
    burn_in = any(role.requirement.for_burn_in for role in request.roles)
    health = Health.BURN_IN if burn_in else Health.GOOD
    everyone = sorted((replace(host, health=health) for host in hosts), key=lambda host: host.name)
    slots = Slots(limit, everyone)
    fits = slots.possible
    found = _together(request, everyone) if slots.unlimited else cheapest_fitting(request, everyone, Costs(), fits)
    if found is None:
        raise ConfigError(explain_impossible(request, everyone, fits), hint="see `lab host list`, or change lab.toml")


def explain_impossible(request: Request, hosts: Sequence[Host], fits: Fits = lambda _names: True) -> str:
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
    chosen = _together(request, hosts)
    if chosen is not None and not fits([host.name for host in chosen.values()]):
        return f"{together}, which is more than the lab lets run at once"
    return f"{together} that fit together; the lab does not have them"


def _together(request: Request, hosts: Iterable[Host]) -> dict[str, Host] | None:
    fleet = Fleet(hosts)
    return cheapest(request, Pool(fleet, fleet.hosts), Costs())


def _waiting_reason(request: Request, fleet: Fleet, ahead: int) -> str:
    wanted = {role.requirement for role in request.roles}
    named = sorted(set(itertools.chain.from_iterable(_busy(one, fleet) for one in wanted)))[: _NAMED + 1]
    if named:
        others = " or others" if len(named) > _NAMED else ""
        return f"waiting for {', '.join(named[:_NAMED])}{others}{place_told(ahead)}"
    return f"waiting for a host kept for a job ahead of it{place_told(ahead)}"


def _busy(requirement: Requirement, fleet: Fleet) -> Iterator[str]:
    """The first hosts, by name, that could serve and that somebody has."""
    busy = (name for name in fleet.ranked(requirement) if name in fleet.usable and name not in fleet.free)
    return itertools.islice(busy, _NAMED + 1)


def place_told(ahead: int) -> str:
    """The end of a reason: how many are served before."""
    return f"; {ahead} ahead of it" if ahead else ""
