"""The calendar of hosts: what is promised to whom, where two promises meet, and when a host is next to be had. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.errors import ConfigError
from lab.hosts.leases import LeaseState, PersonLease, stamp
from lab.hosts.model import Host, Requirement


@dataclass(frozen=True, kw_only=True)
class Blockage:
    """Hosts that nobody may have in [begins, ends), and why: one by its name, or all that meet a requirement.

    Without an end it lasts until it is removed.
    """

    id: int
    why: str
    actor: str
    begins: datetime
    ends: datetime | None = None
    host: str | None = None
    need: str = ""

    def covers(self, host: Host) -> bool:
        """Whether it is about `host`."""
        return self.host == host.name if self.host is not None else Requirement(self.need).offered_by(host)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"blockage {self.id}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`host` is promised in [start, end): to a lease (by its number) or to nobody. `end` None: nobody knows until when.

    A `preemptable` one gives way to any that is not.
    """

    host: str
    start: datetime
    end: datetime | None
    kind: str
    """lease | booking | blockage"""
    id: int
    who: str
    why: str
    preemptable: bool = False

    def meets(self, start: datetime, end: datetime | None) -> bool:
        """Whether it has a moment in common with [start, end)."""
        return (end is None or self.start < end) and (self.end is None or start < self.end)

    def told(self) -> str:
        """For people, in one line."""
        end = f"until {stamp(self.end)}" if self.end else "until further notice"
        number = f"lease {self.id}" if self.kind == "booking" else f"{self.kind} {self.id}"
        what = {"lease": "is leased by", "booking": "is booked by", "blockage": "is blocked by"}[self.kind]
        return f"{self.host} {what} {self.who} from {stamp(self.start)} {end} ({number}: {self.why[:80]})"


def entries(
    leases: Iterable[PersonLease], blockages: Iterable[Blockage], hosts: Iterable[Host], now: datetime
) -> list[Entry]:
    """What is promised: leases that are active or booked for a fixed time, and blockages, each for each of its hosts.

    A lease that has outlived its end still holds its host: its end is then `now` at the earliest.
    """
    found = [entry for lease in leases if (entry := _promise(lease, now)) is not None]
    everyone = list(hosts)
    for blockage in blockages:
        found += [
            Entry(
                host=host.name,
                start=blockage.begins,
                end=blockage.ends,
                kind="blockage",
                id=blockage.id,
                who=blockage.actor,
                why=blockage.why,
            )
            for host in everyone
            if blockage.covers(host)
        ]
    return sorted(found, key=lambda entry: (entry.host, entry.start, entry.kind, entry.id))


def _promise(lease: PersonLease, now: datetime) -> Entry | None:
    if lease.host is None or lease.ends is None or lease.state is LeaseState.ENDED:
        return None
    if lease.state is LeaseState.ACTIVE:
        return entry_of(lease, lease.host, lease.started or now, max(lease.ends, now), kind="lease")
    return entry_of(lease, lease.host, lease.begins or now, lease.ends)


def entry_of(lease: PersonLease, host: str, start: datetime, end: datetime, *, kind: str = "booking") -> Entry:
    """What `host` is promised in [start, end) to a lease."""
    return Entry(
        host=host,
        start=start,
        end=end,
        kind=kind,
        id=lease.id,
        who=lease.holder,
        why=lease.why,
        preemptable=lease.preemptable,
    )


def soon(leases: Iterable[PersonLease], now: datetime) -> list[Entry]:
    """Where leases that are to begin as soon as possible are thought to run: no promise, but no job comes between."""
    return [
        entry_of(lease, lease.host, lease.expected or now, max(lease.expected or now, now) + lease.length)
        for lease in leases
        if lease.state is LeaseState.BOOKED and lease.begins is None and lease.host is not None and lease.waits
    ]


def in_the_way(
    calendar: Iterable[Entry], host: str, start: datetime, end: datetime | None, *, preemptable: bool, but: int = 0
) -> Entry | None:
    """The first promise of `host` that [start, end) would break; lease `but` is not in its own way.

    What is preemptable gives way to what is not.
    """
    meeting = [
        entry
        for entry in calendar
        if entry.host == host
        and entry.meets(start, end)
        and not (entry.preemptable and not preemptable)
        and not (entry.kind != "blockage" and entry.id == but)
    ]
    return min(meeting, key=lambda entry: (entry.start, entry.kind, entry.id), default=None)


def next_free(
    calendar: Sequence[Entry], host: str, start: datetime, length: timedelta, *, preemptable: bool, but: int = 0
) -> datetime | None:
    """The earliest moment from `start` on at which `host` can be had for `length`; None when nobody can say.

    Only ends of promises (and `start`) can be such moments, so each is tried in turn.
    """
    ends = {entry.end for entry in calendar if entry.host == host and entry.end is not None and entry.end > start}
    for moment in (start, *sorted(ends)):
        if in_the_way(calendar, host, moment, moment + length, preemptable=preemptable, but=but) is None:
            return moment
    return None


def check_free(
    calendar: Sequence[Entry],
    host: str,
    start: datetime,
    end: datetime,
    *,
    preemptable: bool,
    but: int = 0,
) -> None:
    """Raise `ConfigError`, naming what is in the way and the next free time, if [start, end) would break a promise."""
    entry = in_the_way(calendar, host, start, end, preemptable=preemptable, but=but)
    if entry is None:
        return
    raise taken(entry, next_free(calendar, host, start, end - start, preemptable=preemptable, but=but))


def taken(entry: Entry, free: datetime | None) -> ConfigError:
    """What whoever asks is told of a promise in the way, and of the next moment (None: unknown) to ask for."""
    if free is None:
        return ConfigError(entry.told(), hint="nobody knows when it will be free")
    return ConfigError(entry.told(), hint=f"it is free for so long from {stamp(_whole_minute(free))} on")


def _whole_minute(moment: datetime) -> datetime:
    """The moment, or the next whole minute: what is told to the minute must still be true when it is typed."""
    whole = moment.replace(second=0, microsecond=0)
    return whole if whole == moment else whole + timedelta(minutes=1)
