"""The plan as a picture: spans of hosts as stretches of a width, computed here so that a template only writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lab.flights.model import Window
from lab.services.show_plan import HostPlan, PlanView, Span
from web.times import job_url, spread

PAST: Final = 0.08
"""How much of the width lies before now."""

AHEADS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 72.0, 168.0)
"""Hours that can be looked ahead."""

_TICKS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440))
_MOST_TICKS: Final = 10
_COMMON: Final = re.compile(r"^test-((amd64|arm64|armhf|i386)-)*")

WORDS: Final = {
    "job": "runs",
    "lease": "leased to",
    "booking": "booked by",
    "blockage": "blocked by",
    "cleaning": "being made clean",
    "shut": "its site does not answer",
    "projected": "expected",
}
"""Each kind of span in words."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of a host's line, in per cent of the width; its tail, up to where it ends nine times out of ten."""

    kind: str
    x: float
    width: float
    tail: float
    """the tail's width"""
    label: str
    title: str
    url: str = ""
    open_end: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A host and its bars; `now` is what happens on it now, for people."""

    name: str
    state: str
    health: str
    bars: tuple[Bar, ...]
    now: str
    now_url: str
    free_at: str
    """how long until whoever has it now gives it back, as a spread"""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A span in words, for a table."""

    host: str
    what: str
    who: str
    url: str
    why: str
    start: datetime
    start_p90: datetime | None
    end: datetime | None
    end_p90: datetime | None


@dataclass(frozen=True, kw_only=True)
class Gantt:
    """Everything on the plan page but the queue."""

    lines: tuple[Line, ...]
    told: tuple[Told, ...]
    ticks: tuple[tuple[float, str], ...]
    now_x: float
    hours: float
    hidden: int
    kinds: tuple[str, ...]


def choose_ahead(view: PlanView) -> float:
    """The fewest hours in which nearly all that is expected has a place, and the next change of what is promised.

    A quarter of an hour to a day.
    """
    spans = [span for row in view.hosts for span in row.spans]
    ends = sorted(span.end.p50 for span in spans if span.end and span.kind in ("job", "projected"))
    changes = [
        moment.p50
        for span in spans
        if span.kind in ("lease", "booking", "blockage")
        for moment in (span.start, span.end)
        if moment and moment.p50 > view.now
    ]
    wanted = [*ends[len(ends) * 19 // 20 :][:1], *sorted(changes)[:1]]
    far = max(wanted) - view.now if wanted else timedelta(hours=1)
    return next((hours for hours in AHEADS[:-2] if timedelta(hours=hours) >= far), AHEADS[-3])


def gantt(view: PlanView, *, hours: float, words: Iterable[str] = (), most: int = 400) -> Gantt:
    """Lay the plan out; hosts that do not match all `words` (name, state, health, holder, flag) are left out."""
    wanted = list(words)
    rows = [row for row in view.hosts if _matches(row, wanted)]
    ahead = timedelta(hours=hours)
    start = view.now - ahead * PAST / (1 - PAST)
    frame = _Frame(start=start, end=view.now + ahead)
    shown = rows[:most]
    kinds = {
        span.kind
        for row in shown
        for span in row.spans
        if span.start.p50 < frame.end and not (span.end and span.end.p50 < frame.start)
    }
    return Gantt(
        lines=tuple(_line(row, frame, view.now) for row in shown),
        told=tuple(_told(row.host.name, span) for row in shown for span in row.spans if span.start.p50 < frame.end),
        ticks=tuple(_ticks(frame)),
        now_x=round(100 * PAST, 2),
        hours=hours,
        hidden=len(view.hosts) - len(shown),
        kinds=tuple(kind for kind in WORDS if kind in kinds),
    )


@dataclass(frozen=True)
class _Frame:
    start: datetime
    end: datetime

    def x(self, moment: datetime | None) -> float:
        """Where a moment lies, in per cent, within the picture; what has no end lies at its edge."""
        if moment is None:
            return 100.0
        part = (moment - self.start) / (self.end - self.start)
        return round(100 * min(1.0, max(0.0, part)), 3)


def _matches(row: HostPlan, words: list[str]) -> bool:
    host = row.host
    known = {host.name, host.arch, host.site, host.state.value, host.health.value, *host.flags}
    known |= {span.who for span in row.spans}
    return all(any(word in text.lower() for text in known) for word in words)


def _line(row: HostPlan, frame: _Frame, now: datetime) -> Line:
    begun = [span for span in row.spans if span.start.p50 <= now and span.kind != "projected"]
    current = min(begun, key=lambda span: list(WORDS).index(span.kind), default=None)
    return Line(
        name=row.host.name,
        state=row.host.state.value,
        health=row.host.health.value,
        bars=tuple(_bar(span, frame) for span in row.spans if span.start.p50 < frame.end),
        now=_now(current) if current else "",
        now_url=_url(current) if current else "",
        free_at=spread(current.end, now) if current and current.end else "",
    )


def _now(span: Span) -> str:
    if span.kind == "job":
        return f"{span.flight}.{short_name(span.job)}"
    return f"{WORDS[span.kind]} {span.who}".strip()


def short_name(job: str) -> str:
    """What tells a job from its sisters, for where there is little room.

    >>> short_name("test-amd64-amd64-xl-pv"), short_name("build-arm64"), short_name("examine")
    ('xl-pv', 'build-arm64', 'examine')
    """
    return _COMMON.sub("", job) or job


def _bar(span: Span, frame: _Frame) -> Bar:
    x, end = frame.x(span.start.p50), frame.x(span.end.p50 if span.end else None)
    late = frame.x(span.end.p90 if span.end else None)
    width = max(end - x, 0.25)
    return Bar(
        kind=span.kind,
        x=x,
        width=round(width, 3),
        tail=round(max(0.0, late - x - width), 3),
        label=short_name(span.job) or span.who or span.why,
        title=_title(span),
        url=_url(span),
        open_end=span.end is None,
    )


def _title(span: Span) -> str:
    words = [f"{WORDS[span.kind]} {span.who}".strip()]
    if span.role and span.role != "host":
        words[0] += f" ({span.role})"
    words.append(f"from {_clock(span.start)}")
    words.append(f"until {_clock(span.end)}" if span.end else "nobody knows until when")
    if span.why:
        words.append(span.why)
    return "\n".join(words)


def _clock(window: Window) -> str:
    early = window.p50.astimezone(UTC).strftime("%a %H:%M")
    late = window.p90.astimezone(UTC).strftime("%H:%M" if window.p90.date() == window.p50.date() else "%a %H:%M")
    return f"{early} UTC" if window.p50 == window.p90 else f"{early} (up to {late}) UTC"


def _url(span: Span) -> str:
    return job_url(span.flight, span.job) if span.flight is not None and span.job else ""


def _told(host: str, span: Span) -> Told:
    exact = span.start.p50 == span.start.p90
    return Told(
        host=host,
        what=WORDS[span.kind],
        who=span.who,
        url=_url(span),
        why=span.why,
        start=span.start.p50,
        start_p90=None if exact else span.start.p90,
        end=span.end.p50 if span.end else None,
        end_p90=span.end.p90 if span.end and span.end.p90 != span.end.p50 else None,
    )


def _ticks(frame: _Frame) -> list[tuple[float, str]]:
    """Where round times of the day lie, and what they are called."""
    length = frame.end - frame.start
    step = next((step for step in _TICKS if length / step <= _MOST_TICKS), _TICKS[-1])
    midnight = frame.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + ((frame.start - midnight) // step + 1) * step
    found = []
    while moment < frame.end:
        form = "%a %d" if moment.hour == moment.minute == 0 else "%H:%M"
        x = frame.x(moment)
        if x < 97 and abs(x - 100 * PAST) > 4:  # it stands clear of the edge and of the word now
            found.append((x, moment.strftime(form)))
        moment += step
    return found
