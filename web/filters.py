"""How values read on a page: durations, times, statuses, untrusted text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from lab.flights.plain_text import clean

ICONS: Final[Mapping[str, str]] = {
    "pass": "✓",
    "fail": "✗",
    "broken": "⚠",
    "blocked": "⊘",
    "running": "◐",
    "preparing": "◔",
    "queued": "…",
    "skipped": "–",
    "starved": "⌛",
    "aborted": "■",
}
"""A sign for every status, for where there is only text (a window's title)."""


def duration(seconds: float | None) -> str:
    """A length of time as short as it stays useful.

    >>> [duration(value) for value in (None, 0.42, 9.96, 42, 125, 7384, 200000)]
    ['', '0.4s', '10s', '42s', '2m 05s', '2h 03m', '2d 07h']
    """
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in words; the date when it is long ago."""
    seconds = (now - moment).total_seconds()
    if seconds < 10:
        return "just now"
    if seconds < 60:
        return f"{int(seconds)} s ago"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)} h ago"
    if seconds < 14 * 86400:
        return f"{int(seconds // 86400)} days ago"
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def absolute(moment: datetime) -> str:
    """A point in time in full."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """A whole length of time, as on a switch.

    >>> [span(seconds) for seconds in (900, 3600, 43200, 86400, 604800)]
    ['15 min', '1 h', '12 h', '1 day', '7 days']
    """
    if seconds < 3600:
        return f"{seconds / 60:g} min"
    if seconds < 86400:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 86400:g} day{'s' if seconds > 86400 else ''}"


def clock(moment: datetime, now: datetime) -> str:
    """A time of the day, with the day when it is not within the next or last hours; UTC."""
    near = abs((moment - now).total_seconds()) < 20 * 3600
    return moment.astimezone(UTC).strftime("%H:%M" if near else "%a %d %H:%M")


def iso(moment: datetime) -> str:
    """A point in time for machines."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def icon(status: str) -> str:
    """The sign of a status."""
    return ICONS.get(status, "·")


def segment(text: str) -> str:
    """Text as one segment of an address."""
    return quote(text, safe="")


def breakable(text: str) -> list[str]:
    """A name cut where a line may end in it: after every dash, slash and underscore."""
    parts = [""]
    for letter in text:
        parts[-1] += letter
        if letter in "-/_":
            parts.append("")
    return [part for part in parts if part]


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "duration": duration,
    "ago": ago,
    "absolute": absolute,
    "iso": iso,
    "span": span,
    "clock": clock,
    "icon": icon,
    "segment": segment,
    "breakable": breakable,
    "clean": clean,
}
