"""When and where every waiting request is expected to run, if nothing unforeseen happens. Pure.

Each request in its turn gets the hosts that are to be had first (list scheduling). How uncertain a time is adds up
along the jobs before it: variances add, as if each took its time independently of the others.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lab.hosts.durations import Estimate
from lab.hosts.model import Host
from lab.hosts.request import Kind, Request, kind_of
from lab.hosts.slots import Limit

_Z90: Final = 1.2816
"""Standard deviations from the middle of a normal distribution to where nine in ten are below."""

FOREVER: Final = math.inf


@dataclass(frozen=True, kw_only=True)
class When:
    """A moment, in seconds since the epoch: even odds at `p50`, nine in ten by `p90`."""

    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class Projected:
    """Where (role -> host) and when a request is expected to run; `place` is its turn, from 1."""

    request: str
    place: int
    hosts: Mapping[str, str]
    start: When
    end: When


@dataclass(frozen=True, kw_only=True)
class Block:
    """A host is not to be had in [start, end), in seconds since the epoch; `end` None: nobody knows until when."""

    host: str
    start: float
    end: float | None
    kind: str
    """lease | booking | blockage | shut"""
    why: str


@dataclass
class _Free:
    """From when on a host can be had: the middle and the variance of that moment."""

    at: float
    variance: float = 0.0


@dataclass
class _Lab:
    now: float
    free: dict[str, _Free]
    blocks: Mapping[str, Sequence[Block]]
    able: dict[tuple[Kind, int], list[Host]] = field(default_factory=dict)
    """the hosts that could serve a role of a kind, by its place"""
    groups: dict[Kind, Sequence[str | None]] = field(default_factory=dict)
    heaps: dict[tuple[Kind, int, str | None], list[tuple[float, str]]] = field(default_factory=dict)
    """of the hosts of a group that could serve a role: when each can be had, which may be out of date (too early)"""


def project(
    now: float,
    turns: Iterable[Request],
    hosts: Iterable[Host],
    *,
    back: Mapping[str, When],
    blocks: Iterable[Block] = (),
    limit: Limit | None = None,
    lanes: Mapping[str, When] | None = None,
    length: Callable[[Request, Sequence[str]], Estimate] = lambda request, _hosts: request.estimate,
    needs: Mapping[str, Iterable[str]] | None = None,
    ends: Mapping[str, When] | None = None,
) -> dict[str, Projected]:
    """Say for every request that can be served, given in `turns`, when and where it will run.

    `back` tells when whoever has a host now gives it back, `lanes` when the next place in a lane is free, and `length`
    how long a request takes on certain hosts. A request with `needs` begins after those, which have turns before its
    own or are running and have `ends`.
    """
    usable = sorted((host for host in hosts if host.usable()), key=lambda host: host.name)
    free = {host.name: _free_from(back.get(host.name), now) for host in usable}
    by_host: dict[str, list[Block]] = {}
    for block in sorted(blocks, key=lambda block: block.start):
        by_host.setdefault(block.host, []).append(block)
    lab = _Lab(now=now, free=free, blocks=by_host)
    places = _Places(limit, {name for name in free if name in back}, free, now)
    in_lane = {lane: _free_from(when, now) for lane, when in (lanes or {}).items()}
    found: dict[str, Projected] = {}
    for place, request in enumerate(turns, start=1):
        before = [
            found[one].end if one in found else (ends or {}).get(one) for one in (needs or {}).get(request.id, ())
        ]
        if None in before:
            continue
        if request.lane:
            chosen: list[str] = []
            available = in_lane.setdefault(request.lane, _Free(now))
        else:
            names = _earliest(lab, request, usable)
            if names is None:
                continue
            chosen = names
            available = max((free[name] for name in chosen), key=lambda one: one.at, default=_Free(now))
            available = places.wait(chosen, available)
        for when in before:
            if when is not None and when.p50 > available.at:
                available = _free_from(when, now)
        estimate = length(request, chosen)
        start = _Free(_clear_of(lab, chosen, estimate.p90_s, available.at), available.variance)
        if start.at == FOREVER:
            continue
        spread = max(0.0, estimate.p90_s - estimate.p50_s) / _Z90
        end = _Free(start.at + estimate.p50_s, start.variance + spread * spread)
        for name in chosen:
            free[name] = end
        places.take(chosen, end)
        if request.lane:
            in_lane[request.lane] = end
        found[request.id] = Projected(
            request=request.id,
            place=place,
            hosts={role.role: name for role, name in zip(request.roles, chosen, strict=False)},
            start=_when(start),
            end=_when(end),
        )
    return found


def _free_from(when: When | None, now: float) -> _Free:
    if when is None:
        return _Free(now)
    spread = max(0.0, when.p90 - when.p50) / _Z90
    return _Free(max(when.p50, now), spread * spread)


def _when(free: _Free) -> When:
    return When(p50=free.at, p90=free.at + _Z90 * math.sqrt(free.variance))


def _earliest(lab: _Lab, request: Request, usable: Sequence[Host]) -> list[str] | None:
    """The hosts that serve the request first, one for each role; None when no hosts ever could."""
    kind = kind_of(request)
    for index, role in enumerate(request.roles):
        if (kind, index) not in lab.able:
            lab.able[kind, index] = [host for host in usable if role.requirement.matches(host)]
        if not lab.able[kind, index]:
            return None
    if kind not in lab.groups:
        lab.groups[kind] = _groups(request, lab.able, kind)
    best: tuple[float, list[str]] | None = None
    for group in lab.groups[kind]:
        picked: list[str] = []
        for index, role in enumerate(request.roles):
            first = _first_of(lab, kind, index, group if role.equivalent else None, picked)
            if first is None:
                break
            picked.append(first)
        else:
            at = max((_start_on(lab, name) for name in picked), default=lab.now)
            if best is None or (at, picked) < best:
                best = (at, picked)
    return best[1] if best else None


def _groups(request: Request, able: Mapping[tuple[Kind, int], Sequence[Host]], kind: Kind) -> Sequence[str | None]:
    """The `equiv-` flags that could be common to the roles that must be alike; None when there are no such roles."""
    alike = [index for index, role in enumerate(request.roles) if role.equivalent]
    if len(alike) < 2:
        return [None]
    sets = [{flag for host in able[kind, index] for flag in host.flags if flag.startswith("equiv-")} for index in alike]
    return sorted(set.intersection(*sets))


def _start_on(lab: _Lab, name: str) -> float:
    """When a host can be had at the earliest, blocks considered."""
    at = lab.free[name].at
    for block in lab.blocks.get(name, ()):
        if block.start <= at and (block.end is None or at < block.end):
            at = FOREVER if block.end is None else block.end
    return at


def _first_of(lab: _Lab, kind: Kind, index: int, group: str | None, but: Sequence[str]) -> str | None:
    """The host that can be had first for a role, except those in `but`; None when there is none, or never."""
    heap = lab.heaps.get((kind, index, group))
    if heap is None:
        able = (host.name for host in lab.able[kind, index] if group is None or group in host.flags)
        heap = lab.heaps[kind, index, group] = [(_start_on(lab, name), name) for name in able]
        heapq.heapify(heap)
    aside: list[tuple[float, str]] = []
    found = None
    while heap:
        at, name = heap[0]
        really = _start_on(lab, name)
        if really != at:
            heapq.heapreplace(heap, (really, name))
        elif name in but:
            aside.append(heapq.heappop(heap))
        else:
            found = name if at < FOREVER else None
            break
    for entry in aside:
        heapq.heappush(heap, entry)
    return found


def _clear_of(lab: _Lab, names: Sequence[str], longest_s: float, at: float) -> float:
    """The first moment from `at` on at which what takes so long ends in time before what is promised."""
    moved = True
    while moved and at < FOREVER:
        moved = False
        for name in names:
            for block in lab.blocks.get(name, ()):
                in_the_way = block.start < at + longest_s and (block.end is None or at < block.end)
                if in_the_way:
                    at, moved = (FOREVER if block.end is None else block.end), True
    return at


class _Places:
    """The places of a lab in which only so many hosts may run at once, as moments from which each is free."""

    def __init__(self, limit: Limit | None, busy: set[str], free: Mapping[str, _Free], now: float) -> None:
        self._limit = limit
        taken = sorted(free[name].at for name in busy if limit is not None and name in limit.hosts)
        count = limit.running if limit is not None else 0
        self._free = [*taken[-count:], *([now] * (count - len(taken)))] if count else []
        heapq.heapify(self._free)

    def wait(self, names: Sequence[str], available: _Free) -> _Free:
        """From when on these hosts can run, as far as places go."""
        counted = self._counted(names)
        if not counted or counted > len(self._free):
            return available
        at = heapq.nsmallest(counted, self._free)[-1]
        return available if at <= available.at else _Free(at, available.variance)

    def take(self, names: Sequence[str], end: _Free) -> None:
        """These hosts run until `end`."""
        for _ in range(min(self._counted(names), len(self._free))):
            heapq.heapreplace(self._free, end.at)

    def _counted(self, names: Sequence[str]) -> int:
        return 0 if self._limit is None else len(self._limit.hosts.intersection(names))
