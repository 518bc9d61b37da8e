"""Whose turn it is: by priority, then between tenants by what they have used for their share, then by age. Pure.

Stride scheduling: each tenant has a virtual time, its use divided by its share; the one furthest behind is next, and
moves on by what its request will take. Of two tenants with equal shares that both wait, each gets half of the host
time from then on, however many jobs the other one has queued: a tenant that floods the queue delays another's job by
at most one job of each other tenant for each job that it itself has in front, plus the job that runs.

Ageing: for each `ageing_s` that a request has waited it counts as one priority more urgent. So nothing waits for ever
behind more urgent work: one of priority p is served, after p - q times `ageing_s`, as if it were of priority q.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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

_Head = tuple[int, str, int, int, Kind, _Line]
"""Who is next in a line: its order and id, its priority, its place, and the line's kind and the line."""


@dataclass
class FairQueue:
    """Requests that wait. Putting, dropping and finding whose turn it is do not cost more because the queue is long."""

    shares: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = math.inf
    expected: Callable[[Request], Estimate] = field(default=estimate_of, compare=False)
    """how long a request will take, as is known at the time of asking"""
    requests: dict[str, Request] = field(default_factory=dict)
    _lines: dict[int, dict[str, dict[Kind, _Line]]] = field(default_factory=dict)
    """priority -> tenant -> kind -> line"""
    _of_kind: dict[Kind, dict[tuple[int, str], _Line]] = field(default_factory=dict)
    """the same lines: kind -> (priority, tenant) -> line"""
    _set_up: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    """(flight, set-up) -> the requests that could take a host over as it stands"""

    def put(self, request: Request) -> None:
        """A request begins to wait, or waits with other words."""
        self.drop(request.id)
        self.requests[request.id] = request
        kinds = self._lines.setdefault(request.priority, {}).setdefault(request.tenant, {})
        kind = kind_of(request)
        if kind not in kinds:
            kinds[kind] = []
            self._of_kind.setdefault(kind, {})[request.priority, request.tenant] = kinds[kind]
        bisect.insort(kinds[kind], (request.order, request.id))
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
        line = kinds[kind]
        del line[bisect.bisect_left(line, (request.order, request.id))]
        if not line:
            del kinds[kind]
            del self._of_kind[kind][request.priority, request.tenant]
            if not self._of_kind[kind]:
                del self._of_kind[kind]
        if not kinds:
            del tenants[request.tenant]
        if not tenants:
            del self._lines[request.priority]
        for key in self._set_ups(request):
            self._set_up[key].discard(request_id)
            if not self._set_up[key]:
                del self._set_up[key]

    def samples(self) -> dict[Kind, Request]:
        """Every kind that waits, with one request of it."""
        return {kind: self.requests[next(iter(lines.values()))[0][1]] for kind, lines in self._of_kind.items()}

    def for_set_up(self, flight: int, setup_key: str) -> list[Request]:
        """Who could take a host over that is set up so, by age; at most a few."""
        found = [self.requests[one] for one in self._set_up.get((flight, setup_key), ())]
        return heapq.nsmallest(3, found, key=lambda request: (request.priority, request.order, request.id))

    def in_turn(
        self, used: Mapping[str, float], most: Callable[[Kind], int] | None = None, *, now: float = 0.0
    ) -> Iterator[Request]:
        """The requests in the order in which they are served; of each kind at most `most` of them (None: all).

        `used` are the host-seconds of each tenant; `now` is in seconds since the epoch.
        """
        left = {kind: math.inf if most is None else most(kind) for kind in self._of_kind}
        levels: dict[int, dict[str, list[_Head]]] = {}

        def enter(priority: int, tenant: str, kind: Kind, line: _Line, place: int, least: int | None) -> int:
            """Put what is at `place` of a line where it belongs: its priority, once it has aged, from `least` on."""
            order, request_id = line[place]
            level = self._level(priority, request_id, now)
            if least is not None:
                level = max(level, least)
            heads = levels.setdefault(level, {}).setdefault(tenant, [])
            heapq.heappush(heads, (order, request_id, priority, place, kind, line))
            return level

        for kind, count in left.items():
            if count > 0:
                for (priority, tenant), line in self._of_kind[kind].items():
                    enter(priority, tenant, kind, line, 0, None)
        virtual = {tenant: used.get(tenant, 0.0) / self._share(tenant) for heads in levels.values() for tenant in heads}
        while levels:
            level = min(levels)
            turns = [(virtual[tenant], tenant) for tenant in levels[level]]
            heapq.heapify(turns)
            while turns:
                _behind, tenant = heapq.heappop(turns)
                mine = levels[level][tenant]
                while mine and left[mine[0][4]] <= 0:
                    heapq.heappop(mine)
                if not mine:
                    continue
                _order, request_id, priority, place, kind, line = heapq.heappop(mine)
                request = self.requests[request_id]
                if place + 1 < len(line):
                    enter(priority, tenant, kind, line, place + 1, level)
                left[kind] -= 1
                virtual[tenant] += charge_of(request, self.expected(request)) / self._share(tenant)
                heapq.heappush(turns, (virtual[tenant], tenant))
                yield request
            del levels[level]

    def _level(self, priority: int, request_id: str, now: float) -> int:
        """The priority of a request, once it has aged."""
        if self.ageing_s == math.inf:
            return priority
        submitted = self.requests[request_id].submitted
        return priority - int(max(now - submitted, 0.0) / self.ageing_s) if submitted > 0 else priority

    def _share(self, tenant: str) -> float:
        return self.shares.get(tenant, 1.0)

    @staticmethod
    def _set_ups(request: Request) -> set[tuple[int, str]]:
        if request.flight is None:
            return set()
        return {(request.flight, role.setup_key) for role in request.roles if role.setup_key is not None}
