"""How a job or a test went, laid out: hosts by flights, rates by class of hosts, and durations as a chart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from math import ceil
from typing import Final

from lab.flights.history import Run
from lab.flights.plain_text import clean
from lab.flights.status import StepStatus
from web.filters import duration
from web.flight_views import Part, Tally
from web.times import job_url

NOWHERE: Final = "–"
"""The row of runs without a host, such as builds."""

WIDTH: Final = 1200
HEIGHT: Final = 150
_LEFT: Final = 64
_TOP: Final = 10


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One run, where its host and its flight meet."""

    status: str
    url: str
    title: str


@dataclass(frozen=True, kw_only=True)
class HeatRow:
    """A host; those of one class stand together."""

    host: str
    host_class: str
    cells: tuple[tuple[HeatCell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class HeatColumn:
    """A flight; `fresh` when what was under test is not what the flight before it had on this branch."""

    flight: int
    branch: str
    started: datetime
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Hosts below one another, flights side by side, the newest first; `days`: short name, name, how many columns."""

    columns: tuple[HeatColumn, ...]
    rows: tuple[HeatRow, ...]
    days: tuple[tuple[str, str, int], ...]


def heat_map(runs: Iterable[Run], classes: Mapping[str, str], revisions: Mapping[int, object] | None = None) -> HeatMap:
    """Lay runs out; hosts that are alike stand together. `revisions`: what each flight tested, where that is known."""
    listed = list(runs)
    flights: dict[int, Run] = {}
    for run in listed:
        if run.flight not in flights or run.started < flights[run.flight].started:
            flights[run.flight] = run
    order = sorted(flights, reverse=True)
    place = {flight: number for number, flight in enumerate(order)}
    rows: dict[str, list[list[HeatCell]]] = {}
    for run in sorted(listed, key=lambda one: (one.flight, one.attempt)):
        for host in dict.fromkeys(run.hosts or (NOWHERE,)):
            row = rows.setdefault(host, [[] for _ in order])
            row[place[run.flight]].append(_cell(run))
    columns = [
        HeatColumn(
            flight=flight,
            branch=flights[flight].branch,
            started=flights[flight].started,
            fresh=_fresh(flight, flights, revisions or {}),
        )
        for flight in order
    ]
    return HeatMap(
        columns=tuple(columns),
        rows=tuple(
            HeatRow(host=host, host_class=classes.get(host, ""), cells=tuple(tuple(cells) for cells in row))
            for host, row in sorted(rows.items(), key=lambda item: (classes.get(item[0], ""), item[0]))
        ),
        days=tuple(
            # of a day with one flight there is only room for the number
            (day if count > 1 else day.rpartition(" ")[2], day, count)
            for day, members in groupby(columns, key=lambda column: column.started.strftime("%b %d"))
            if (count := sum(1 for _ in members))
        ),
    )


def _fresh(flight: int, flights: Mapping[int, Run], revisions: Mapping[int, object]) -> bool:
    before = max(
        (other for other in flights if other < flight and flights[other].branch == flights[flight].branch), default=0
    )
    return flight in revisions and before in revisions and revisions[flight] != revisions[before]


def _cell(run: Run) -> HeatCell:
    words = [f"{run.flight}.{run.job} on {', '.join(run.hosts) or 'no host'}: {run.status}"]
    if run.seconds is not None:
        words[0] += f", {duration(run.seconds)}"
    if run.testid or run.reason:
        words.append(clean(": ".join(part for part in (run.testid, run.reason) if part)))
    return HeatCell(status=run.status, url=run_url(run), title="\n".join(words))


def run_url(run: Run) -> str:
    """The step of a run, or its job."""
    return job_url(run.flight, run.job, attempt=None if run.newest else run.attempt, step=run.stepno)


_ORDER: Final = ("pass", "skipped", "fail", "broken", "blocked", "aborted", "running")


def bar(counts: Mapping[str, int]) -> Tally:
    """How often each status, as a bar."""
    total, parts, x = sum(counts.values()), [], 0.0
    for status in _ORDER:
        if count := counts.get(status, 0):
            width = 100 * count / total
            parts.append(Part(status=status, x=round(x, 3), width=round(width, 3), count=count))
            x += width
    return Tally(total=total, done=total - counts.get(StepStatus.RUNNING.value, 0), parts=tuple(parts))


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A run in the chart of durations."""

    x: float
    y: float
    status: str
    url: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """How long the runs took, the newest at the left; `lines` are lengths with their heights."""

    width: int
    height: int
    left: int
    dots: tuple[Dot, ...]
    lines: tuple[tuple[float, str], ...]


def duration_chart(runs: Sequence[Run]) -> Chart | None:
    """Dots for the runs that have ended; None when there are fewer than two."""
    ended = [run for run in runs if run.seconds is not None and run.status in ("pass", "fail")]
    if len(ended) < 2:
        return None
    top = _round_up(max(run.seconds or 0.0 for run in ended))
    step = (WIDTH - _LEFT - 16) / max(len(ended) - 1, 1)
    reach = HEIGHT - 2 * _TOP

    def height(seconds: float) -> float:
        return round(_TOP + reach * (1 - seconds / top), 1)

    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        dots=tuple(
            Dot(
                x=round(_LEFT + 8 + step * number, 1),
                y=height(run.seconds or 0.0),
                status=run.status,
                url=run_url(run),
                title=_cell(run).title,
            )
            for number, run in enumerate(ended)
        ),
        lines=tuple((height(top * share), duration(top * share)) for share in (0.0, 0.5, 1.0)),
    )


_ROUND: Final = (
    *(1, 2, 4, 6, 10, 20, 30, 40),
    *(60 * minutes for minutes in (1, 2, 3, 4, 6, 8, 10, 16, 20, 30, 40)),
    *(3600 * hours for hours in (1, 2, 3, 4, 6, 8, 12, 16, 24)),
)


def _round_up(seconds: float) -> float:
    """The end of a scale that reaches beyond `seconds`."""
    return next((float(end) for end in _ROUND if end >= seconds), ceil(seconds / 86400) * 86400.0)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """The same thing that went wrong in several runs."""

    status: str
    testid: str
    reason: str
    runs: tuple[tuple[int, str], ...]
    more: int


def reasons(runs: Iterable[Run], *, most: int = 20) -> list[Reason]:
    """What went wrong, the latest first, runs with the same words together."""
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.status not in ("pass", "skipped", "running", "preparing", "queued"):
            found[run.status, run.testid, run.reason].append(run)
    return [
        Reason(
            status=status,
            testid=testid,
            reason=reason,
            runs=tuple((run.flight, run_url(run)) for run in members[:6]),
            more=max(len(members) - 6, 0),
        )
        for (status, testid, reason), members in list(found.items())[:most]
    ]
