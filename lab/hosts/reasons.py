"""Why each waiting request waits: a word for programs, a line for people, and what the line is made of. Pure."""

from __future__ import annotations

import bisect
import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from lab.hosts.model import Host, HostState
from lab.hosts.planner import Fits, explain_impossible, place_told
from lab.hosts.projection import Block
from lab.hosts.request import Kind, Request, kind_of

_NAMED: Final = 3
"""Hosts that are called by their names; the others are counted."""

_TOLD: Final = 20
"""Hosts that programs are told."""


class ReasonKind(enum.Enum):
    """Why a request waits."""

    WAITING_FOR_HOST = "waiting_for_host"
    BEHIND_IN_SHARE = "behind_in_share"
    """others go first though they came later: their tenants have used less for their share"""
    RESERVED_FOR_ANOTHER = "reserved_for_another"
    PLACE_LIMIT = "place_limit"
    """its hosts are there, but too many would run at once"""
    NEEDS_JOB = "needs_job"
    NO_HOST_CAN_MATCH = "no_host_can_match"
    BLOCKAGE_UNTIL = "blockage_until"
    LANE_FULL = "lane_full"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a request waits: `text` is the one line for people, `data` what it is made of."""

    kind: ReasonKind
    text: str
    data: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def reasons(
    now: float,
    turns: Sequence[Request],
    hosts: Sequence[Host],
    *,
    possible: Collection[str],
    for_place: Mapping[str, str],
    blocks: Iterable[Block] = (),
    fits: Fits | None = None,
) -> dict[str, Reason]:
    """A reason for every request of `turns`, which are in the order in which they are served.

    `possible` are the requests that can be served at all; `for_place` what the latest
    plan said of those whose hosts are there, but too many would run at once.
    """
    blocks = list(blocks)
    blocked = _blocked_now(now, blocks)
    soon = _soon(now, blocks)
    able: dict[Kind, _Able] = {}
    rivals: dict[Kind, list[Kind]] = {}
    """the kinds that want some of the same hosts"""
    before: dict[Kind, list[int]] = defaultdict(list)
    """orders of the requests of a kind that are served earlier, sorted"""
    for request in turns:
        kind = kind_of(request)
        if kind not in able:
            able[kind] = _able(request, hosts, blocked, soon)
    for kind, mine in able.items():
        names = set(mine.names)
        rivals[kind] = [other for other, theirs in able.items() if other == kind or not names.isdisjoint(theirs.names)]
    found: dict[str, Reason] = {}
    for request in turns:
        kind = kind_of(request)
        ahead = sum(len(before[rival]) for rival in rivals[kind])
        earlier = sum(bisect.bisect_right(before[rival], request.order) for rival in rivals[kind])
        if request.lane:
            text = f"waiting for another {request.lane} to end{place_told(ahead)}"
            reason = Reason(kind=ReasonKind.LANE_FULL, text=text, data={"lane": request.lane, "ahead": ahead})
        elif request.id not in possible and not able[kind].out:
            why = _impossible(request, hosts, fits)
            reason = Reason(kind=ReasonKind.NO_HOST_CAN_MATCH, text=why)
        else:
            overtakers = ahead - earlier
            reason = _waiting(request, able[kind], ahead, overtakers, for_place.get(request.id, ""), now)
        bisect.insort(before[kind], request.order)
        found[request.id] = reason
    return found


def _impossible(request: Request, hosts: Sequence[Host], fits: Fits | None) -> str:
    return explain_impossible(request, hosts, fits) if fits else explain_impossible(request, hosts)


@dataclass(frozen=True, kw_only=True)
class _Able:
    """The hosts that could serve requests of a kind."""

    names: Sequence[str]
    out: Sequence[Block]
    """why some are not to be had now"""
    busy: str
    """those that somebody has, for people"""
    free: int
    """how many nobody has"""
    soon: Sequence[Block]
    """what these are promised to next, the latest first"""


def _able(request: Request, hosts: Sequence[Host], blocked: Mapping[str, Block], soon: Mapping[str, Block]) -> _Able:
    able = [host for host in hosts if host.usable() and any(role.requirement.matches(host) for role in request.roles)]
    names = [host.name for host in able]
    busy = [host.name for host in able if host.state is not HostState.FREE and host.name not in blocked]
    free = [host.name for host in able if host.state is HostState.FREE and host.name not in blocked]
    return _Able(
        names=names,
        out=[blocked[name] for name in names if name in blocked],
        busy=_listed(busy),
        free=len(free),
        soon=sorted((soon[name] for name in free if name in soon), key=lambda block: -block.start),
    )


def _blocked_now(now: float, blocks: Iterable[Block]) -> dict[str, Block]:
    return {
        block.host: block
        for block in blocks
        if block.start <= now and (block.end is None or now < block.end) and block.kind != "lease"
    }


def _soon(now: float, blocks: Iterable[Block]) -> dict[str, Block]:
    """The next promise of each host that is not due yet."""
    found: dict[str, Block] = {}
    for block in sorted(blocks, key=lambda block: block.start):
        if block.start > now:
            found.setdefault(block.host, block)
    return found


def _waiting(request: Request, able: _Able, ahead: int, overtakers: int, for_place: str, now: float) -> Reason:
    if able.out and len(able.out) > len(able.names) - len(request.roles):
        return _blocked(able.out, ahead)
    data: dict[str, object] = {"ahead": ahead, "hosts": able.names[:_TOLD]}
    if for_place:
        return Reason(kind=ReasonKind.PLACE_LIMIT, text=for_place, data=data)
    if able.free and len(able.soon) == able.free and able.soon[0].start < now + request.estimate.p90_s:
        return _too_long(request, able.soon[0], ahead)
    if not able.busy:
        text = f"waiting for a host kept for a job ahead of it{place_told(ahead)}"
        return Reason(kind=ReasonKind.RESERVED_FOR_ANOTHER, text=text, data=data)
    text = f"waiting for {able.busy}{place_told(ahead)}"
    if overtakers:
        text += f" ({overtakers} came later: their tenants have used less)"
        data |= {"tenant": request.tenant, "overtaken_by": overtakers}
        return Reason(kind=ReasonKind.BEHIND_IN_SHARE, text=text, data=data)
    return Reason(kind=ReasonKind.WAITING_FOR_HOST, text=text, data=data)


def _blocked(blocks: Sequence[Block], ahead: int) -> Reason:
    first = min(blocks, key=lambda block: (block.end is None, block.end or 0.0, block.host))
    until = f"until {_clock(first.end)}" if first.end is not None else "until further notice"
    more = f" (and {len(blocks) - 1} more)" if len(blocks) > 1 else ""
    text = f"{first.host}{more} is not to be had {until}: {first.why}{place_told(ahead)}"
    data = {"hosts": [block.host for block in blocks][:_TOLD], "until": first.end, "ahead": ahead}
    return Reason(kind=ReasonKind.BLOCKAGE_UNTIL, text=text, data=data)


def _too_long(request: Request, block: Block, ahead: int) -> Reason:
    minutes = max(1, round(request.estimate.p90_s / 60))
    text = (
        f"{block.host} is free, but not from {_clock(block.start)} on ({block.why}), and this may take up to "
        f"{minutes} min{place_told(ahead)}"
    )
    data = {"hosts": [block.host], "until": block.end, "from": block.start, "ahead": ahead}
    return Reason(kind=ReasonKind.BLOCKAGE_UNTIL, text=text, data=data)


def _clock(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} or one of {len(names) - _NAMED} others"
