"""When a job is given up because waiting for its hosts would hold its flight up unreasonably. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FOREVER: Final = float("inf")


@dataclass(frozen=True, kw_only=True)
class StarvationRule:
    """A queued job is *starved* when at least `done_share` of its flight's jobs have ended and nothing of it runs, and
    the flight would take more than `factor` times as long with the job as without, at least `least_s` seconds longer,
    and from now on still longer than it took without.

    OSSTest's rule of 2019 (nine in ten jobs done, five times as long) with two more conditions: no short flight gives
    up what a coffee would bring, and no job is given up that is about to run after all (the lab was down, say).
    `factor` 0 switches it off.
    """

    done_share: float = 0.9
    factor: float = 5.0
    least_s: float = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class FlightWait:
    """A flight whose last jobs wait: seconds since the epoch.

    `others_end`: when what has ended or runs has ended, as far as one can tell; `waiting`: each queued job and when it
    is expected to have ended (`FOREVER`: nobody can tell).
    """

    started: float
    jobs: int
    ended: int
    others_end: float
    waiting: Mapping[str, float]


def starved(flight: FlightWait, now: float, rule: StarvationRule) -> dict[str, str]:
    """The jobs to be given up, each with the reason.

    A job that nobody can tell when it will run counts as if it ran for the rest of time, but only once it has already
    held the flight up for `least_s`.
    """
    if rule.factor <= 0 or flight.ended < rule.done_share * flight.jobs:
        return {}
    without = max(flight.others_end - flight.started, 1.0)
    found = {}
    for job, end in flight.waiting.items():
        longer, left = end - flight.others_end, end - now
        if end == FOREVER:
            if now - flight.others_end >= rule.least_s:
                found[job] = (
                    f"nothing tells when it could run, and it alone has held the flight up for "
                    f"{_hours(now - flight.others_end)}"
                )
        elif longer >= rule.least_s and end - flight.started > rule.factor * without and left > without:
            found[job] = (
                f"it would run until {_hours(end - flight.started)} after the flight began, "
                f"which takes {_hours(without)} without it ({flight.ended} of {flight.jobs} jobs have ended)"
            )
    return found


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
