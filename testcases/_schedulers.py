"""Xen's schedulers: what each lets a guest be given, how xl is told, and how much a guest ran. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

LIMIT_PERCENT: Final = 30
"""Of one processor; so much a guest is allowed while it would take all."""

SLACK_PERCENT: Final = 12
"""What `xl list` rounds away, and what a scheduler hands out in whole slices, measured over a few seconds."""

UNLIMITED_PERCENT: Final = 55
"""A guest without a limit gets at least this much of the processor that it shares with an idle dom0."""


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A scheduler's command of xl; settings that differ from the default, and settings that limit a guest.

    The settings map the words of xl's table to values; `options` maps the same words to xl's options. `always` are
    options without which xl takes none.
    """

    command: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    limited: Mapping[str, int] = field(default_factory=dict)
    unlimited: Mapping[str, int] = field(default_factory=dict)
    always: tuple[str, ...] = ()

    def arguments(self, guest: str, settings: Mapping[str, int]) -> tuple[str, ...]:
        """The arguments of xl that give a guest these settings."""
        pairs = [word for name, value in settings.items() for word in (self.options[name], str(value))]
        return (self.command, "-d", guest, *self.always, *pairs)


_WEIGHT_AND_CAP: Final = MappingProxyType({"Weight": "-w", "Cap": "-c"})

SCHEDULERS: Final[Mapping[str, Scheduler]] = MappingProxyType(
    {
        "credit": Scheduler(
            command="sched-credit",
            options=_WEIGHT_AND_CAP,
            limited={"Weight": 512, "Cap": LIMIT_PERCENT},
            unlimited={"Weight": 256, "Cap": 0},
        ),
        "credit2": Scheduler(
            command="sched-credit2",
            options=_WEIGHT_AND_CAP,
            limited={"Weight": 512, "Cap": LIMIT_PERCENT},
            unlimited={"Weight": 256, "Cap": 0},
        ),
        "rtds": Scheduler(
            command="sched-rtds",
            options=MappingProxyType({"Period": "-p", "Budget": "-b", "Extratime": "-e"}),
            # long ones: whatever a late timer lets a guest have beyond its budget is never taken back
            limited={"Period": 500_000, "Budget": 5_000 * LIMIT_PERCENT, "Extratime": 0},
            unlimited={"Period": 10_000, "Budget": 4_000, "Extratime": 1},
            always=("-v", "all"),
        ),
        # a virtual CPU has its processor alone; there is nothing to set
        "null": Scheduler(),
    }
)
"""By Xen's own word, as in `sched=` on its command line and in `xl info`."""


def parse_table(text: str, guest: str) -> Mapping[str, int]:
    """The numbers that one of xl's tables has for a guest (its first virtual CPU), by the words of the table's head.

    Empty when there is no such row.

    >>> parse_table("Name    ID Weight  Cap\\nguest    3    512   30\\n", "guest")["Cap"]
    30
    """
    head: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["Name", "ID"]:
            head = words[1:]
        elif head and words[:1] == [guest] and len(words) == len(head) + 1:
            numbers = ["1" if word == "yes" else "0" if word == "no" else word for word in words[1:]]
            return {name: int(number) for name, number in zip(head, numbers, strict=True) if number.isdigit()}
    return {}


LOOK: Final = 'xl list "$1" | tail -n 1; cut -d " " -f 1 /proc/uptime'
"""How much a guest ran so far, and when that was; for `share`."""


def share(first: str, second: str) -> float | None:
    """How much of one processor a guest used between two looks (see `LOOK`), in percent; None when they do not tell."""
    looks = [re.search(r"[a-z-]{6}\s+([0-9.]+)\s*\n([0-9.]+)\s*$", text.strip()) for text in (first, second)]
    if looks[0] is None or looks[1] is None:
        return None
    (ran, at), (later_ran, later_at) = ((float(look[1]), float(look[2])) for look in looks if look)
    return 100.0 * (later_ran - ran) / (later_at - at) if later_at > at else None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a virtual CPU is: a line of `xl vcpu-list`. `cpu` is None while it is on none."""

    domain: str
    vcpu: int
    cpu: int | None
    state: str
    seconds: float


def parse_vcpu_list(text: str) -> tuple[Placed, ...]:
    """All virtual CPUs of `xl vcpu-list`."""
    rows = re.finditer(
        r"^(\S.*?)\s+[0-9]+\s+([0-9]+)\s+([0-9]+|-)\s+([a-z-]{3})\s+([0-9.]+)\s", text + "\n", re.MULTILINE
    )
    return tuple(
        Placed(
            domain=row[1], vcpu=int(row[2]), cpu=None if row[3] == "-" else int(row[3]),
            state=row[4], seconds=float(row[5]),
        )
        for row in rows
    )  # fmt: skip


def shared_processors(placed: tuple[Placed, ...]) -> tuple[str, ...]:
    """What breaks the promise of null: virtual CPUs without a processor, and processors with several of them."""
    by_cpu: dict[int | None, list[str]] = {}
    for each in placed:
        by_cpu.setdefault(each.cpu, []).append(f"{each.domain}/{each.vcpu}")
    none = [f"{name} has no processor" for name in by_cpu.get(None, [])]
    return (*none, *(f"{' and '.join(names)} share processor {cpu}" for cpu, names in by_cpu.items()
                     if cpu is not None and len(names) > 1))  # fmt: skip
