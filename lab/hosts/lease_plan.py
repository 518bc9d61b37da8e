"""Which booked leases begin now, why the others wait, and which preemptable ones are told to end. Pure.

Leases booked for a fixed time come first, in the order of their times; then those that are to begin as soon as
possible, in the order in which they were asked for. Each of these is put into the earliest gap of the calendar that is
long enough, on the host where that is soonest. A lease whose time has come keeps its host, and its place among the
hosts that may run at once, until it can begin: no job gets in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from lab.hosts.calendar import Blockage, Entry, entry_of, in_the_way, next_free
from lab.hosts.leases import DEFAULT_RULES, LeaseRules, LeaseState, PersonLease, stamp
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.slots import Limit, Slots


@dataclass(frozen=True, kw_only=True)
class Held:
    """Who has a host that is not free, and when it is expected back (None: nobody knows)."""

    who: str
    back: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a booked lease has not begun: on which host it is thought to begin, and when."""

    why: str
    host: str | None = None
    expected: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A preemptable lease will be taken `at`, `for_whom`."""

    at: datetime
    for_whom: str


@dataclass(frozen=True, kw_only=True)
class LeasePlan:
    """What to do about leases now.

    `begin` maps leases to the hosts they get now. `keep` are hosts that no job may start on, because a lease whose
    time has come waits for them. `notices` has every active preemptable lease: its notice, or None when nobody wants
    its host (any more). `power_off` are free hosts whose places a waiting lease needs.
    """

    begin: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    waits: Mapping[int, Wait] = field(default_factory=lambda: MappingProxyType({}))
    notices: Mapping[int, Notice | None] = field(default_factory=lambda: MappingProxyType({}))
    keep: frozenset[str] = frozenset()
    power_off: tuple[str, ...] = ()


_NOBODY: Final = Held(who="nobody")


def plan_leases(
    now: datetime,
    leases: Iterable[PersonLease],
    hosts: Iterable[Host],
    calendar: Sequence[Entry],
    *,
    held: Mapping[str, Held] = MappingProxyType({}),
    wanted: Mapping[str, str] = MappingProxyType({}),
    limit: Limit | None = None,
    rules: LeaseRules = DEFAULT_RULES,
) -> LeasePlan:
    """Decide. `hosts` are the lab's, `calendar` is `entries` of them; `wanted` says which hosts jobs would start on.

    The order of the inputs does not matter.
    """
    going = sorted((lease for lease in leases if lease.state is not LeaseState.ENDED), key=lambda lease: lease.id)
    plan = _Plan(now, going, hosts, calendar, held, limit, rules)
    for lease in sorted(going, key=lambda lease: (lease.begins or now, lease.id)):
        if lease.state is LeaseState.BOOKED and lease.begins is not None and lease.begins <= now:
            plan.put_fixed(lease)
    for lease in going:
        if lease.state is LeaseState.BOOKED and lease.begins is None:
            plan.put_soon(lease)
    return LeasePlan(
        begin=plan.begin,
        waits=plan.waits,
        notices=plan.notices(going, wanted),
        keep=frozenset(plan.keep),
        power_off=tuple(plan.power_off),
    )


class _Plan:
    """A plan in the making."""

    def __init__(
        self,
        now: datetime,
        leases: Sequence[PersonLease],
        hosts: Iterable[Host],
        calendar: Sequence[Entry],
        held: Mapping[str, Held],
        limit: Limit | None,
        rules: LeaseRules,
    ) -> None:
        self.now, self.held, self.rules = now, held, rules
        self.hosts = {host.name: host for host in sorted(hosts, key=lambda host: host.name)}
        self.calendar = list(calendar)
        self.slots = Slots(limit, self.hosts.values())
        self.active = {lease.host: lease for lease in leases if lease.state is LeaseState.ACTIVE}
        self.begin: dict[int, str] = {}
        self.waits: dict[int, Wait] = {}
        self.waited_for: dict[str, PersonLease] = {}
        self.keep: set[str] = set()
        self.power_off: list[str] = []

    def put_fixed(self, lease: PersonLease) -> None:
        """A lease whose booked time has come; one with a requirement moves when its host is out of use."""
        names = [lease.host] if lease.host is not None else []
        own = self.hosts.get(lease.host or "")
        if lease.need and (own is None or not own.usable()):
            names = [*self._matching(lease), *names]
        clear = [name for name in names if self._in_the_way(lease, name, lease.ends) is None]
        for name in clear or names[:1]:
            self._begin_or_wait(lease, name)
            return
        self.waits[lease.id] = Wait(why="no host of the lab meets its requirement")

    def put_soon(self, lease: PersonLease) -> None:
        """A lease that is to begin as soon as possible: the earliest gap of any host it may have."""
        names = self._matching(lease) if lease.need else [lease.host or ""]
        places = []
        for name in names:
            host = self.hosts.get(name)
            start = self._available(host, lease) if host is not None else None
            if start is not None:
                start = next_free(self.calendar, name, start, lease.length, preemptable=lease.preemptable, but=lease.id)
            if host is not None and start is not None:
                places.append((start, host.setup_key is not None, name))
        if not places:
            self.waits[lease.id] = self._nowhere(lease, names)
            return
        start, _set_up, name = min(places)
        self.calendar.append(entry_of(lease, name, start, start + lease.length))  # others queue behind it
        first = self._in_the_way(lease, name, self.now + lease.length)
        if first is None:  # nothing but whoever has it now stands before it
            self._begin_or_wait(lease, name)
        else:
            self.waits[lease.id] = Wait(why=f"waiting: {first.told()}", host=name, expected=start)

    def _matching(self, lease: PersonLease) -> list[str]:
        need = Requirement(lease.need)
        return [name for name, host in self.hosts.items() if host.usable() and need.matches(host)]

    def _in_the_way(self, lease: PersonLease, name: str, end: datetime | None) -> Entry | None:
        return in_the_way(self.calendar, name, self.now, end, preemptable=lease.preemptable, but=lease.id)

    def _available(self, host: Host, lease: PersonLease) -> datetime | None:
        """When whoever has `host` gives it back; None when it will not be lent at all."""
        if host.health is Health.RETIRED:
            return None
        if host.state is HostState.FREE:
            return self.now
        other = self.active.get(host.name)
        if other is not None and other.preemptable and not lease.preemptable:
            end = other.notice or self.now + self.rules.notice
        elif other is not None:
            end = other.ends or self.now
        else:
            end = self.held.get(host.name, _NOBODY).back or self.now
        return max(end, self.now)

    def _nowhere(self, lease: PersonLease, names: Sequence[str]) -> Wait:
        if not names:
            return Wait(why="no host of the lab meets its requirement now: see `lab host list`")
        for name in names:
            if (gone := self._gone(name)) is not None:
                return gone
        entry = self._in_the_way(lease, names[0], None)
        return Wait(why=f"waiting: {entry.told()}" if entry else "waiting", host=names[0])

    def _gone(self, name: str) -> Wait | None:
        """Why a host will not be lent at all; None when it may be."""
        if name not in self.hosts:
            return Wait(why=f"{name} is not in the lab's file any more", host=name)
        if self.hosts[name].health is Health.RETIRED:
            return Wait(why=f"{name} is retired", host=name)
        return None

    def _begin_or_wait(self, lease: PersonLease, name: str) -> None:
        if (gone := self._gone(name)) is not None:
            self.waits[lease.id] = gone
            return
        host = self.hosts[name]
        end = lease.ends or self.now + lease.length
        entry = self._in_the_way(lease, name, end)
        if entry is not None and entry.start <= self.now:
            self.waits[lease.id] = Wait(why=f"waiting: {entry.told()}", host=name, expected=entry.end)
            return
        self.keep.add(name)
        if name in self.begin.values():
            self.waits[lease.id] = Wait(why=f"waiting: {name} goes to an earlier lease", host=name)
        elif host.state is not HostState.FREE:
            self.waited_for.setdefault(name, lease)
            expected = self._available(host, lease)
            who = self.held.get(name, _NOBODY).who if host.state is HostState.LEASED else "being made clean"
            other = self.active.get(name)
            if other is not None and other.preemptable:
                at = other.notice or self.now + self.rules.notice
                who = f"{other.holder} until {stamp(at)}, by a preemptable {other.name} that has notice"
            why = f"{name} is {who}" if host.state is HostState.CLEANING else f"{name} is held by {who}"
            self.waits[lease.id] = Wait(why=f"waiting: {why}", host=name, expected=expected)
        elif self.slots.free_for([name]):
            self.slots.start([name])
            self.begin[lease.id] = name
        else:
            self.slots.claim([name])
            spare = [one for one in self.hosts.values() if one.state is HostState.FREE and one.name not in self.keep]
            self.power_off += self.slots.end(spare)
            self.waits[lease.id] = Wait(why=f"waiting for a place: {self.slots.told()}", host=name, expected=self.now)

    def notices(self, leases: Sequence[PersonLease], wanted: Mapping[str, str]) -> dict[int, Notice | None]:
        """For every active preemptable lease, when it has to give way and to whom."""
        found: dict[int, Notice | None] = {}
        for lease in leases:
            if lease.state is not LeaseState.ACTIVE or not lease.preemptable or lease.host is None:
                continue
            at, whom = self._claim(lease, lease.host, leases, wanted)
            if at is None:
                found[lease.id] = None
                continue
            # who has been told a time is not told an earlier one
            at = lease.notice if lease.notice is not None else max(at, self.now + self.rules.notice)
            found[lease.id] = Notice(at=at, for_whom=whom)
        return found

    def _claim(
        self, lease: PersonLease, host: str, leases: Sequence[PersonLease], wanted: Mapping[str, str]
    ) -> tuple[datetime | None, str]:
        """The earliest moment somebody else needs the host of a preemptable lease, if that is soon; and who."""
        waiting = self.waited_for.get(host)
        if waiting is not None and not waiting.preemptable:
            return self.now, f"{waiting.holder} ({waiting.name})"
        if host in wanted:
            return self.now, wanted[host]
        for other in sorted(leases, key=lambda one: (one.begins or self.now, one.id)):
            if other.state is not LeaseState.BOOKED or other.preemptable or other.host != host or other.begins is None:
                continue
            if other.begins - self.rules.notice <= self.now and (lease.ends is None or other.begins < lease.ends):
                return other.begins, f"{other.holder} ({other.name})"
        return None, ""


def next_change(
    leases: Iterable[PersonLease], blockages: Iterable[Blockage], now: datetime, rules: LeaseRules = DEFAULT_RULES
) -> datetime | None:
    """The next moment at which there is something to decide anew, if nothing else happens; None when there is none."""
    moments: set[datetime | None] = set()
    for lease in leases:
        match lease.state:
            case LeaseState.ACTIVE:
                moments.add(lease.until)
            case LeaseState.BOOKED:
                moments |= {lease.begins, lease.ends}
                if lease.begins is not None and not lease.preemptable:
                    moments.add(lease.begins - rules.notice)
            case LeaseState.ENDED:
                pass
    for blockage in blockages:
        moments |= {blockage.begins, blockage.ends}
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
