"""Whose turn it is: by priority, then between tenants by what they have used for their share, then by age. Pure.

Stride scheduling: each tenant has a virtual time, its use divided by its share; the one furthest behind is next, and
moves on by what its request will take. Of two tenants with equal shares that both wait, each gets half of the host
time from then on, however many jobs the other one has queued: a tenant that floods the queue delays another's job by
at most one job of each other tenant for each job that it itself has in front, plus the job that runs.

Ageing: for each `ageing_s` that the oldest request of a priority has waited, all of that priority count as one more
urgent, and share fairly with those that are: so nothing waits for ever behind more urgent work, and nobody's flood
gets in front of others by growing old.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lab.hosts.durations import Estimate
from lab.hosts.request import Kind, Request, kind_of

LEAST_CHARGE_S: Final = 1.0


def charge_of(request: Request, estimate: Estimate | None = None) -> float:
    """The host-seconds that a request is expected to take."""
    return max((estimate or request.estimate).p50_s, LEAST_CHARGE_S) * max(1, len(request.roles))


def estimate_of(request: Request) -> Estimate:
    """What a request was said to take when it came."""
    return request.estimate


_Line = list[tuple[int, str]]
"""The requests of one tenant, priority and kind: (order, id), sorted."""

_Head = tuple[tuple[float, ...], int, str, int, int, Kind, _Line]
"""Who is next in a line: how much it matters, its order and id, the line's number, its place, the kind, the line."""


@dataclass
class FairQueue:
    """Requests that wait. Putting, dropping and finding whose turn it is do not cost more because the queue is long."""

    shares: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = math.inf
    expected: Callable[[Request], Estimate] = field(default=estimate_of, compare=False)
    """how long a request will take, as is known at the time of asking"""
    requests: dict[str, Request] = field(default_factory=dict)
    shortest: float = field(default=math.inf, compare=False)
    """in seconds: none of those that wait was said to take less when it came (nine times out of ten)"""
    work: dict[Kind, float] = field(default_factory=dict, compare=False)
    """the host-seconds that those of a kind were expected to take when they came"""
    longest: dict[Kind, float] = field(default_factory=dict, compare=False)
    """in seconds: none of a kind was expected to take longer when it came (even odds)"""
    _charges: dict[str, float] = field(default_factory=dict, compare=False)
    _lines: dict[int, dict[str, dict[Kind, _Line]]] = field(default_factory=dict)
    """priority -> tenant -> kind -> line"""
    _submitted: dict[int, list[tuple[float, str]]] = field(default_factory=dict, compare=False)
    """priority -> when its requests were submitted, a heap that may have some that wait no more"""
    _of_kind: dict[Kind, dict[tuple[int, str], _Line]] = field(default_factory=dict)
    """the same lines: kind -> (priority, tenant) -> line"""
    _set_up: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    """(flight, set-up) -> the requests that could take a host over as it stands"""

    def put(self, request: Request) -> None:
        """A request begins to wait, or waits with other words."""
        self.drop(request.id)
        self.shortest = min(self.shortest if self.requests else math.inf, self.expected(request).p90_s)
        self.requests[request.id] = request
        heapq.heappush(self._submitted.setdefault(request.priority, []), (request.submitted, request.id))
        kinds = self._lines.setdefault(request.priority, {}).setdefault(request.tenant, {})
        kind = kind_of(request)
        if kind not in kinds:
            kinds[kind] = []
            self._of_kind.setdefault(kind, {})[request.priority, request.tenant] = kinds[kind]
        bisect.insort(kinds[kind], (request.order, request.id))
        expected = self.expected(request)
        self._charges[request.id] = charge_of(request, expected)
        self.work[kind] = self.work.get(kind, 0.0) + self._charges[request.id]
        self.longest[kind] = max(self.longest.get(kind, 0.0), expected.p50_s)
        for key in self._set_ups(request):
            self._set_up.setdefault(key, set()).add(request.id)

    def drop(self, request_id: str) -> None:
        """A request waits no more."""
        request = self.requests.pop(request_id, None)
        if request is None:
            return
        tenants = self._lines[request.priority]
        kinds = tenants[request.tenant]
        kind = kind_of(request)
        self.work[kind] -= self._charges.pop(request_id)
        line = kinds[kind]
        del line[bisect.bisect_left(line, (request.order, request.id))]
        if not line:
            del kinds[kind]
            del self._of_kind[kind][request.priority, request.tenant]
            if not self._of_kind[kind]:
                del self._of_kind[kind], self.work[kind], self.longest[kind]
        if not kinds:
            del tenants[request.tenant]
        if not tenants:
            del self._lines[request.priority]
            del self._submitted[request.priority]
        for key in self._set_ups(request):
            self._set_up[key].discard(request_id)
            if not self._set_up[key]:
                del self._set_up[key]

    def samples(self) -> dict[Kind, Request]:
        """Every kind that waits, with one request of it."""
        return {kind: self.requests[next(iter(lines.values()))[0][1]] for kind, lines in self._of_kind.items()}

    def priorities(self, kind: Kind) -> set[int]:
        """The priorities of those of a kind that wait."""
        return {priority for priority, _tenant in self._of_kind.get(kind, ())}

    def for_set_up(self, flight: int, setup_key: str) -> list[Request]:
        """Who could take a host over that is set up so, by age; at most a few."""
        found = [self.requests[one] for one in self._set_up.get((flight, setup_key), ())]
        return heapq.nsmallest(3, found, key=lambda request: (request.priority, request.order, request.id))

    def in_turn(
        self,
        used: Mapping[str, float],
        most: Callable[[Kind], int] | None = None,
        *,
        now: float = 0.0,
        ending: Callable[[Kind], bool] = lambda _kind: False,
        places: Mapping[str, float] = MappingProxyType({}),
    ) -> Iterator[Request]:
        """The requests in the order in which they are served; of each kind at most `most` of them (None: all).

        `used` are the host-seconds of each tenant; `now` is in seconds since the epoch. Of a flight's requests those of
        kinds that are `ending` come first, and of them the longest: else all would wait for one that began last
        (longest processing time first, Graham 1969); or they come by `places`, which are below 0. Older flights of the
        tenant stay ahead, so that nobody is overtaken for ever.
        """
        left = {kind: math.inf if most is None else most(kind) for kind in self._of_kind}
        virtual = {
            tenant: used.get(tenant, 0.0) / self._share(tenant)
            for tenants in self._lines.values()
            for tenant in tenants
        }
        for priorities in self._levels(now):
            tenants = {tenant for priority in priorities for tenant in self._lines[priority]}
            turns = [(virtual[tenant], tenant) for tenant in tenants]
            heapq.heapify(turns)
            heads: dict[str, list[_Head]] = {}
            while turns:
                _behind, tenant = heapq.heappop(turns)
                if tenant not in heads:
                    heads[tenant] = self._heads(tenant, priorities, left, ending, places)
                mine = heads[tenant]
                while mine and left[mine[0][5]] <= 0:
                    heapq.heappop(mine)
                if not mine:
                    continue
                ahead, _order, request_id, number, place, kind, line = mine[0]
                if place + 1 < len(line):
                    if ahead:
                        ahead = self._ahead(line[place + 1][1], places, ends=ending(kind))
                    heapq.heapreplace(mine, (ahead, *line[place + 1], number, place + 1, kind, line))
                else:
                    heapq.heappop(mine)
                request = self.requests[request_id]
                left[kind] -= 1
                virtual[tenant] += charge_of(request, self.expected(request)) / self._share(tenant)
                heapq.heappush(turns, (virtual[tenant], tenant))
                yield request

    def _heads(
        self,
        tenant: str,
        priorities: Sequence[int],
        left: Mapping[Kind, float],
        ending: Callable[[Kind], bool],
        places: Mapping[str, float],
    ) -> list[_Head]:
        """Who is next in each line of a tenant, as a heap."""
        lines = [
            (kind, line)
            for priority in priorities
            for kind, line in self._lines[priority].get(tenant, {}).items()
            if left[kind] > 0
        ]
        ends = {kind for kind, _line in lines if ending(kind)}
        found: list[_Head] = []
        for number, (kind, line) in enumerate(lines):
            ahead: tuple[float, ...] = ()
            if kind in ends:
                aheads = {one: self._ahead(one[1], places, ends=True) for one in line}
                line = sorted(line, key=lambda one: (aheads[one], one))
            if ends:
                ahead = self._ahead(line[0][1], places, ends=kind in ends)
            found.append((ahead, *line[0], number, 0, kind, line))
        heapq.heapify(found)
        return found

    def _ahead(self, request_id: str, places: Mapping[str, float], *, ends: bool) -> tuple[float, float]:
        """Where a request stands among its tenant's, when some of them are ending: its flight, and its place in it."""
        request = self.requests[request_id]
        place = places.get(request_id, -self.expected(request).p50_s - 1.0) if ends else 0.0
        return float(request.order if request.flight is None else request.flight), place

    def _levels(self, now: float) -> list[list[int]]:
        """The priorities that wait, the most urgent first; those that count as equally urgent together."""
        priorities = sorted(self._lines)
        if len(priorities) < 2 or self.ageing_s == math.inf:
            return [[priority] for priority in priorities]
        levels: dict[int, list[int]] = {}
        for priority in priorities:
            waited = max(0.0, now - self._oldest(priority))
            levels.setdefault(max(priorities[0], priority - int(waited / self.ageing_s)), []).append(priority)
        return [levels[level] for level in sorted(levels)]

    def _oldest(self, priority: int) -> float:
        """When the oldest request of a priority was submitted."""
        heap = self._submitted[priority]
        while heap[0][1] not in self.requests or self.requests[heap[0][1]].priority != priority:
            heapq.heappop(heap)
        return heap[0][0]

    def _share(self, tenant: str) -> float:
        return self.shares.get(tenant, 1.0)

    @staticmethod
    def _set_ups(request: Request) -> set[tuple[int, str]]:
        if request.flight is None:
            return set()
        return {(request.flight, role.setup_key) for role in request.roles if role.setup_key is not None}
