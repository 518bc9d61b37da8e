"""Whose turn it is: by priority, then between tenants by what they have used for their share, then by age. Pure.

Stride scheduling: each tenant has a virtual time, its use divided by its share; the one furthest behind is next, and
moves on by what its request will take. Of two tenants with equal shares that both wait, each gets half of the host
time from then on, however many jobs the other one has queued: a tenant that floods the queue delays another's job by
at most one job of each other tenant for each job that it itself has in front, plus the job that runs.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from lab.hosts.planner import Request

Kind = tuple[object, ...]
"""What a request asks for: those of one kind can be served by the same hosts."""

LEAST_CHARGE_S: Final = 1.0


def kind_of(request: Request) -> Kind:
    """Requests of one kind have the same requirements in the same roles."""
    return (request.lane, *((role.requirement.text, role.equivalent) for role in request.roles))


def charge_of(request: Request) -> float:
    """The host-seconds that a request is expected to take."""
    return max(request.estimate.p50_s, LEAST_CHARGE_S) * max(1, len(request.roles))


_Line = list[tuple[int, str]]
"""The requests of one tenant, priority and kind: (order, id), sorted."""


@dataclass
class FairQueue:
    """Requests that wait. Putting, dropping and finding whose turn it is do not cost more because the queue is long."""

    shares: Mapping[str, float] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    _lines: dict[int, dict[str, dict[Kind, _Line]]] = field(default_factory=dict)
    """priority -> tenant -> kind -> line"""
    _set_up: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    """(flight, set-up) -> the requests that could take a host over as it stands"""

    def put(self, request: Request) -> None:
        """A request begins to wait, or waits with other words."""
        self.drop(request.id)
        self.requests[request.id] = request
        kinds = self._lines.setdefault(request.priority, {}).setdefault(request.tenant, {})
        bisect.insort(kinds.setdefault(kind_of(request), []), (request.order, request.id))
        for key in self._set_ups(request):
            self._set_up.setdefault(key, set()).add(request.id)

    def drop(self, request_id: str) -> None:
        """A request waits no more."""
        request = self.requests.pop(request_id, None)
        if request is None:
            return
        tenants = self._lines[request.priority]
        kinds = tenants[request.tenant]
        line = kinds[kind_of(request)]
        del line[bisect.bisect_left(line, (request.order, request.id))]
        if not line:
            del kinds[kind_of(request)]
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
        return {
            kind: self.requests[line[0][1]]
            for tenants in self._lines.values()
            for kinds in tenants.values()
            for kind, line in kinds.items()
        }

    def for_set_up(self, flight: int, setup_key: str) -> list[Request]:
        """Who could take a host over that is set up so, by age; at most a few."""
        found = [self.requests[one] for one in self._set_up.get((flight, setup_key), ())]
        return heapq.nsmallest(3, found, key=lambda request: (request.priority, request.order, request.id))

    def in_turn(self, used: Mapping[str, float], most: Callable[[Kind], int] | None = None) -> Iterator[Request]:
        """The requests in the order in which they are served; of each kind at most `most` of them (None: all).

        `used` are the host-seconds of each tenant.
        """
        left: dict[Kind, int] = {}

        def exhausted(kind: Kind) -> bool:
            if most is None:
                return False
            if kind not in left:
                left[kind] = most(kind)
            return left[kind] <= 0

        virtual = {tenant: used.get(tenant, 0.0) / self._share(tenant) for tenant in self._tenants()}
        for priority in sorted(self._lines):
            heads: dict[str, list[tuple[int, str, int, Kind, _Line]]] = {}
            for tenant, kinds in self._lines[priority].items():
                heads[tenant] = [(*line[0], index, kind, line) for index, (kind, line) in enumerate(kinds.items())]
                heapq.heapify(heads[tenant])
            places = {(tenant, kind): 0 for tenant, kinds in self._lines[priority].items() for kind in kinds}
            turns = [(virtual[tenant], tenant) for tenant in heads]
            heapq.heapify(turns)
            while turns:
                _behind, tenant = heapq.heappop(turns)
                mine = heads[tenant]
                while mine and exhausted(mine[0][3]):
                    heapq.heappop(mine)
                if not mine:
                    continue
                _order, request_id, index, kind, line = mine[0]
                request = self.requests[request_id]
                places[tenant, kind] += 1
                if places[tenant, kind] < len(line):
                    heapq.heapreplace(mine, (*line[places[tenant, kind]], index, kind, line))
                else:
                    heapq.heappop(mine)
                if most is not None:
                    left[kind] -= 1
                virtual[tenant] += charge_of(request) / self._share(tenant)
                heapq.heappush(turns, (virtual[tenant], tenant))
                yield request

    def _tenants(self) -> set[str]:
        return {tenant for tenants in self._lines.values() for tenant in tenants}

    def _share(self, tenant: str) -> float:
        return self.shares.get(tenant, 1.0)

    @staticmethod
    def _set_ups(request: Request) -> set[tuple[int, str]]:
        if request.flight is None:
            return set()
        return {(request.flight, role.setup_key) for role in request.roles if role.setup_key is not None}
