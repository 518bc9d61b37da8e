"""The queue, the hosts and what runs, kept so that a decision costs what has changed, and not what there is. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from types import MappingProxyType

from lab.hosts.choice import DEFAULT_POLICY, Costs, Past, Policy, Possible
from lab.hosts.durations import Estimate
from lab.hosts.fair import FairQueue
from lab.hosts.fleet import Fleet
from lab.hosts.planner import Plan, plan_in_turn
from lab.hosts.portfolio import best_order
from lab.hosts.projection import When, project
from lab.hosts.request import Kind, Request, kind_of
from lab.hosts.runs import Runs
from lab.hosts.scarcity import Scarcity
from lab.hosts.slots import Limit

_LONG = 7 * 86_400.0
"""When hosts are taken to be back of which nobody knows when they will be."""

_SHORT = 8.0
"""When the work that waits is less for each host than so many of the longest requests, it is done before long."""

LOOK_AHEAD = 64
"""Requests of each kind that are looked at beside those that could start, where places are few."""


ENDING = 3.0
"""Requests of a kind are ending when all that waits is less work for each host than so many of the longest of them."""


FEW = 32
"""When so few wait, and what waits is done before long, the best of several orders is taken."""


def _all(_kind: Kind) -> bool:
    return True


class Allocator:
    """Decides who gets which hosts, again and again. Whoever feeds it says what happened; it never asks."""

    def __init__(
        self,
        *,
        shares: Mapping[str, float] = MappingProxyType({}),
        ageing_s: float = float("inf"),
        policy: Policy = DEFAULT_POLICY,
        limit: Limit | None = None,
        expected: Callable[[Request], Estimate] = lambda request: request.estimate,
        past: Past = lambda _request: {},
    ) -> None:
        """`expected` says how long a request will take, `past` where it ran, as is known at the time of asking."""
        self.fleet = Fleet()
        self.queue = FairQueue(shares=shares, ageing_s=ageing_s, expected=expected)
        self.runs = Runs()
        self._policy, self._limit = policy, limit
        self._expected, self._past = expected, past
        self._possible = Possible(self.fleet)
        self._order: tuple[int, Mapping[str, float]] | None = None
        self._scarcity = Scarcity(self.fleet)
        self._keeping: dict[str, float] = {}
        """since when hosts have been kept for those that wait"""

    def put(self, request: Request) -> None:
        """A request begins to wait, or waits with other words."""
        self.queue.put(request)
        self._order = None

    def drop(self, request_id: str) -> None:
        """A request waits no more."""
        self.queue.drop(request_id)
        self._keeping.pop(request_id, None)

    def decide(
        self,
        now: float,
        *,
        used: Mapping[str, float],
        left: Mapping[str, float] = MappingProxyType({}),
        back: Callable[[str], float] | None = None,
        lanes: Mapping[str, int] = MappingProxyType({}),
        whole: bool = False,
    ) -> Plan:
        """What starts now: of each kind of request those whose turn it is, as many as could start, and the next one.

        `used` are the host-seconds that tenants have used, what runs included; `left`, `back` and `lanes` are those of
        `plan`. With `whole`, those who wait for hosts none of which is free are in the plan, too.
        """
        free = self.fleet.free
        samples = self.queue.samples()
        whole = whole or self._limit is not None
        # Where only so many hosts may run, who comes later decides which of those that stand ready is to be kept.
        more = 1 if self._limit is None else LOOK_AHEAD

        def most(kind: Kind) -> int:
            request = samples[kind]
            if request.lane:
                return 0
            able = [self.fleet.able(role.requirement) for role in request.roles]
            found = sum(1 for name in free if any(name in names for names in able))
            return found + more if found or whole else 0

        def most_in_lane(kind: Kind) -> int:
            lane = samples[kind].lane
            return max(lanes.get(lane, 0), 0) + 1 if lane else 0

        places = self._places(now, used, back)
        in_lanes = self.queue.in_turn(used, most_in_lane, now=now) if any(one.lane for one in samples.values()) else ()
        decided = plan_in_turn(
            self.fleet,
            self._as_expected(
                self._with_set_ups(
                    self.queue.in_turn(used, most, now=now, ending=_all if places else self.ending, places=places)
                )
            ),
            without_hosts=self._as_expected(in_lanes),
            possible=self._possible,
            costs=Costs(self._policy, self._scarcity.wanted(samples, self.queue.work), self._past, now),
            lanes=lanes,
            limit=self._limit,
            left=left,
            back=back or (lambda name: self.runs.back(name, now)),
            held={job: now - since for job, since in self._keeping.items()},
            whole=whole,
            shortest=self.queue.shortest,
            spared=self._spared(samples) if not whole else None,
        )
        for job in decided.keeping:
            self._keeping.setdefault(job, now)
        return decided

    def _places(
        self, now: float, used: Mapping[str, float], back: Callable[[str], float] | None
    ) -> Mapping[str, float]:
        """In which order the last ones should begin; looked for anew when somebody comes or the hosts are others."""
        if not 1 < len(self.queue.requests) <= FEW or not self._short():
            return {}
        if self._order is None or self._order[0] != self.fleet.generation:
            since = back or (lambda name: self.runs.back(name, now))
            away = self.fleet.usable.keys() - self.fleet.free.keys()
            soon = {name: now + min(since(name), _LONG) for name in away}
            returns = {name: When(p50=at, p90=at) for name, at in soon.items()}

            def done_after(places: Mapping[str, float]) -> float:
                turns = self.queue.in_turn(used, now=now, ending=_all, places=places)
                found = project(now, turns, self.fleet.everyone(), back=returns, limit=self._limit, length=self._on)
                return max((one.end.p50 for one in found.values()), default=now)

            order = best_order(list(self.queue.requests.values()), self._expected, self._able, done_after)
            self._order = self.fleet.generation, order
        return self._order[1]

    def _short(self) -> bool:
        """Whether what waits is done before long."""
        longest = max(self.queue.longest.values(), default=0.0)
        return sum(self.queue.work.values()) < _SHORT * longest * len(self.fleet.usable)

    def _on(self, request: Request, _hosts: Sequence[str]) -> Estimate:
        return self._expected(request)

    def _able(self, request: Request) -> int:
        """How many hosts could serve a request."""
        return max((len(self.fleet.able(role.requirement)) for role in request.roles), default=0)

    def _spared(self, samples: Mapping[Kind, Request]) -> Callable[[Request], AbstractSet[str]] | None:
        """Which free hosts a request leaves to those that can run on no others, unless they are less urgent."""
        scarce = self._scarcity.scarce(samples, self.queue.work)
        scarce = [names for names in scarce if not names.isdisjoint(self.fleet.free)]
        if not scarce:
            return None
        urgency = {
            names: min(priority for kind in self._scarcity.within(names) for priority in self.queue.priorities(kind))
            for names in scarce
        }

        def spared(request: Request) -> AbstractSet[str]:
            priority = self.queue.requests[request.id].priority
            return self._scarcity.left_to_others(
                kind_of(request), [names for names in scarce if urgency[names] <= priority]
            )

        return spared

    def ending(self, kind: Kind) -> bool:
        """Whether so little waits that the longest request of a kind could be what all wait for in the end."""
        work, hosts = sum(self.queue.work.values()), len(self.fleet.usable)
        longest = ENDING * self.queue.longest[kind]
        if work >= longest * hosts:
            return False
        return self.queue.work[kind] < longest * max(1, self._able(self.queue.samples()[kind]))

    def _as_expected(self, turns: Iterable[Request]) -> Iterator[Request]:
        """The requests as the planner is to see them: their turn is all that counts, not their priority."""
        for request in turns:
            expected = self._expected(request)
            if request.priority or request.estimate is not expected:
                request = replace(request, priority=0, estimate=expected)
            yield request

    def _with_set_ups(self, turns: Iterable[Request]) -> Iterator[Request]:
        """Beside each flight's first request, those of the flight that could take over a host as it stands."""
        ready: dict[int, set[str]] = defaultdict(set)
        for host in self.fleet.free.values():
            if host.setup_flight is not None and host.setup_key is not None:
                ready[host.setup_flight].add(host.setup_key)
        if not ready:
            yield from turns
            return
        there: set[str] = set()
        for request in turns:
            if request.id in there:
                continue
            there.add(request.id)
            yield request
            for key in sorted(ready.pop(request.flight, ())) if request.flight is not None else ():
                for other in self.queue.for_set_up(request.flight or 0, key):
                    if other.id not in there and other.priority == request.priority:
                        there.add(other.id)
                        yield other
