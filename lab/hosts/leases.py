"""Leases of people: who holds a host from when until when and why, and the rules for it. Pure.

A lease is one thing with one number all its life: *booked* until its time has come and its host is free, *active*
while its holder has the host under a fencing token, *ended* afterwards, with the outcome. Jobs hold hosts by the same
table and the same tokens; their times are those of their attempts.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lab.errors import ConfigError

LONGEST_TEXT: Final = 500
"""Characters of a reason; a holder's name has at most 64."""


class LeaseState(enum.Enum):
    """Where a lease stands in its life."""

    BOOKED = "booked"
    ACTIVE = "active"
    ENDED = "ended"


class Outcome(enum.Enum):
    """How a lease ended."""

    RELEASED = "released"
    EXPIRED = "expired"
    SILENT = "silent"
    """no heartbeat came in time"""
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    """given back before it began"""
    MISSED = "missed"
    """its time passed while the host was not to be had"""


@dataclass(frozen=True, kw_only=True)
class LeaseRules:
    """What the lab's file says about leases of people.

    `longest` is how far ahead of now a lease that runs may end, and how long one may be booked for; `ahead` how far in
    the future one may begin. The holder of a preemptable lease gets `notice` before the host is taken.
    """

    longest: timedelta = timedelta(days=7)
    ahead: timedelta = timedelta(days=90)
    notice: timedelta = timedelta(minutes=15)


DEFAULT_RULES: Final = LeaseRules()
SHORTEST: Final = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class PersonLease:
    """A lease of a person, booked, active or ended.

    `host` is None while a lease with a requirement (`need`) has no host yet. `begins` is None when it is to begin as
    soon as possible; `ends` is known once it has begun, or was booked for a fixed time. `fence` is the token of the
    hold while it is active. `notice` is when a preemptable lease will be taken, for `notice_for`. `waits` says why a
    booked one has not begun, `expected` when it is thought to. With a `heartbeat`, it ends when nothing was `heard` of
    its holder for that long.
    """

    id: int
    holder: str
    why: str
    length: timedelta
    created: datetime
    state: LeaseState = LeaseState.BOOKED
    host: str | None = None
    need: str = ""
    begins: datetime | None = None
    ends: datetime | None = None
    preemptable: bool = False
    outcome: Outcome | None = None
    fence: int | None = None
    started: datetime | None = None
    closed: datetime | None = None
    notice: datetime | None = None
    notice_for: str = ""
    waits: str = ""
    expected: datetime | None = None
    heartbeat: timedelta | None = None
    heard: datetime | None = None

    @property
    def until(self) -> datetime | None:
        """When it ends if nobody does anything more: its end, its notice or the silence of its holder."""
        moments = [moment for moment in (self.ends, self.notice) if moment is not None]
        if self.heartbeat is not None and self.heard is not None and self.state is LeaseState.ACTIVE:
            moments.append(self.heard + self.heartbeat)
        return min(moments, default=None)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"lease {self.id}"


def how_ended(lease: PersonLease, now: datetime) -> Outcome | None:
    """How a lease that has not been given back has ended by `now`; None while it goes on.

    A clock that goes back only makes a lease last longer: nothing that has ended begins again.
    """
    match lease.state:
        case LeaseState.BOOKED:
            return Outcome.MISSED if lease.ends is not None and now >= lease.ends else None
        case LeaseState.ACTIVE:
            if lease.ends is not None and now >= lease.ends:
                return Outcome.EXPIRED
            if lease.notice is not None and now >= lease.notice:
                return Outcome.PREEMPTED
            if lease.until is not None and now >= lease.until:
                return Outcome.SILENT
            return None
        case LeaseState.ENDED:
            return None


def check_line(what: str, text: str, *, longest: int = LONGEST_TEXT, empty: bool = False) -> str:
    """`text` without blanks around it, one printable line; `ConfigError` otherwise."""
    line = text.strip()
    if not line and not empty:
        raise ConfigError(f"the {what} is empty", hint="say it in a line")
    if len(line) > longest or not line.isprintable():
        raise ConfigError(
            f"the {what} is not one printable line of at most {longest} characters",
            hint="remove control characters and newlines",
        )
    return line


def check_person(name: str) -> str:
    """The name of a person who holds or acts; `ConfigError` when it could be taken for a job or is no plain name."""
    name = check_line("person's name", name, longest=64)
    if any(letter.isspace() for letter in name) or name.partition(".")[0].isdecimal():
        raise ConfigError(f"{name!r} is no person's name", hint="use a login name, e.g. ann or ann@example.org")
    return name


def check_length(length: timedelta, rules: LeaseRules) -> None:
    """Raise `ConfigError` when a lease would be of no use or too long."""
    if length < SHORTEST:
        raise ConfigError(f"a lease for {told(length)} is too short", hint="at least 1m, e.g. --for 2h")
    if length > rules.longest:
        raise ConfigError(
            f"a lease for {told(length)} is too long: at most {told(rules.longest)}",
            hint="book less, and extend it while it runs; the limit is longest_h in [leases] of lab.toml",
        )


def check_begin(begins: datetime, now: datetime, rules: LeaseRules) -> None:
    """Raise `ConfigError` when a lease cannot be booked from `begins`."""
    if begins < now - SHORTEST:
        raise ConfigError(f"{stamp(begins)} is over", hint="leave --from out to begin as soon as possible")
    if begins > now + rules.ahead:
        raise ConfigError(
            f"{stamp(begins)} is too far ahead: at most {told(rules.ahead)}",
            hint="book nearer to the time; the limit is ahead_days in [leases] of lab.toml",
        )


def check_extension(lease: PersonLease, ends: datetime, now: datetime, rules: LeaseRules) -> None:
    """Raise `ConfigError` unless the end of `lease` may be moved to `ends`."""
    if lease.state is LeaseState.ENDED:
        raise ConfigError(f"{lease.name} has ended: {ending(lease)}", hint="take a new one with `lab host lease`")
    if lease.state is LeaseState.BOOKED and lease.ends is None:
        raise ConfigError(f"{lease.name} has not begun", hint="release it, and book it for longer")
    if lease.ends is not None and ends <= lease.ends:
        raise ConfigError(
            f"{lease.name} runs until {stamp(lease.ends)} already", hint="to end it earlier, release it"
        )
    start = now if lease.state is LeaseState.ACTIVE or lease.begins is None else lease.begins
    if ends - start > rules.longest:
        raise ConfigError(
            f"{stamp(ends)} is too far ahead: at most {told(rules.longest)}",
            hint="extend it again later; the limit is longest_h in [leases] of lab.toml",
        )


def check_holder(lease: PersonLease, person: str, token: int | None = None) -> None:
    """Raise `ConfigError` unless `person` holds `lease` now, under `token` if one is told."""
    if lease.state is not LeaseState.ACTIVE:
        state = ending(lease) if lease.state is LeaseState.ENDED else "it has not begun"
        raise ConfigError(f"{lease.name} is not active: {state}", hint="see `lab lease list`")
    if lease.holder != person:
        raise ConfigError(f"{lease.host} is held by {lease.holder}, not by {person}", hint="ask its holder")
    if token is not None and token != lease.fence:
        raise ConfigError(
            f"token {token} of {lease.host} has expired: the present one is another's or newer",
            hint="`lab lease show` tells the holder's token",
        )


def ending(lease: PersonLease) -> str:
    """How and when a lease ended, for people."""
    how = lease.outcome.value if lease.outcome else "ended"
    return f"{how} {stamp(lease.closed)}" if lease.closed else how


def stamp(moment: datetime) -> str:
    """A point in time as people read it: UTC, to the minute."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


_UNITS: Final[Mapping[str, int]] = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def told(length: timedelta) -> str:
    """A length of time as it is written: `1d 2h 30m`; negative ones with a minus.

    >>> [told(timedelta(seconds=seconds)) for seconds in (0, 90, 7200, 93_784, -60)]
    ['0s', '1m 30s', '2h', '1d 2h 3m 4s', '-1m']
    """
    left = round(length.total_seconds())
    sign, left = ("-", -left) if left < 0 else ("", left)
    parts = []
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + (" ".join(parts) or "0s")
