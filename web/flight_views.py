"""A flight in a line, and the counts of its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lab.flights.model import Flight, FlightSummary
from lab.flights.status import JobStatus
from web.times import seconds_of

# The order in which counts are shown: what needs a look first.
_ORDER: Final = (
    JobStatus.FAIL,
    JobStatus.BROKEN,
    JobStatus.BLOCKED,
    JobStatus.STARVED,
    JobStatus.ABORTED,
    JobStatus.RUNNING,
    JobStatus.PREPARING,
    JobStatus.QUEUED,
    JobStatus.PASS,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a bar: from `x` on, `width` wide, both in per cent."""

    status: str
    x: float
    width: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many jobs stand how, as numbers and as a bar from left to right."""

    total: int
    done: int
    parts: tuple[Part, ...]


def tally(counts: Mapping[JobStatus, int]) -> Tally:
    """How many jobs stand how, as a bar."""
    total, parts, x = sum(counts.values()), [], 0.0
    # In the bar what has passed comes first, so that it fills up from the left.
    for status in (JobStatus.PASS, *_ORDER[:-1]):
        if count := counts.get(status):
            width = 100 * count / total
            parts.append(Part(status=status.value, x=round(x, 3), width=round(width, 3), count=count))
            x += width
    return Tally(total=total, done=sum(count for status, count in counts.items() if status.final), parts=tuple(parts))


@dataclass(frozen=True, kw_only=True)
class FlightLine:
    """A flight in the list and at the head of its own page."""

    id: int
    branch: str
    status: str
    final: bool
    intended: str
    blessing: str
    submitter: str
    tenant: str
    note: str
    started: datetime
    finished: datetime | None
    seconds: float
    tally: Tally


def flight_line(flight: Flight | FlightSummary, now: datetime) -> FlightLine:
    """Sum a flight up."""
    return FlightLine(
        id=flight.id,
        branch=flight.branch,
        status=flight.status.value,
        final=flight.finished is not None or flight.status.final,
        intended=flight.intended.value,
        blessing=flight.blessing.value,
        submitter=flight.submitter,
        tenant=flight.tenant,
        note=flight.note,
        started=flight.started,
        finished=flight.finished,
        seconds=seconds_of(flight.started, flight.finished, now),
        tally=tally(flight.counts),
    )
