"""Waiting for something to become true, with a limit and with the job's guard watching."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lab.flights.steps import StepContext

T = TypeVar("T")


def until(
    ctx: StepContext,
    probe: Callable[[], T | None],
    *,
    limit_s: float,
    every_s: float = 0.3,
    clock: Callable[[], float] = time.monotonic,
) -> T | None:
    """The first answer of `probe` that is not None; None when `limit_s` seconds passed without one.

    The probe runs at least twice (at once, and at the end), however slow it is.
    """
    end = clock() + limit_s
    while (answer := probe()) is None:
        left = end - clock()
        if left <= 0:
            return probe()
        ctx.wait(min(every_s, left))
    return answer


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()

    @property
    def seconds(self) -> float:
        """Seconds so far, to a tenth."""
        return round(self._clock() - self._start, 1)
