"""A machine's power as it was seen lately: for whoever wants to know often whether it is still on."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.errors import InfraError
from lab.hosts.protocols import Power

FRESH_S = 15.0
"""So long an answer is good: a BMC is asked seldom, whoever waits for the machine."""


class Remembered:
    """Answers from memory. Not knowing is no answer: a BMC that hiccups must not break a job whose machine is well."""

    def __init__(self, power: Power, *, clock: Callable[[], float] = time.monotonic, fresh_s: float = FRESH_S) -> None:
        self._power = power
        self._clock = clock
        self._fresh_s = fresh_s
        self._seen: tuple[float, bool | None] | None = None

    def get(self) -> bool | None:
        """What the switches said within the last `fresh_s` seconds; None when they cannot tell, or not be asked."""
        now = self._clock()
        if self._seen is None or now - self._seen[0] > self._fresh_s:
            try:
                seen = self._power.get()
            except InfraError:
                seen = None
            self._seen = now, seen
        return self._seen[1]

    def forget(self) -> None:
        """Something was switched."""
        self._seen = None
