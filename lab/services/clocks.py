"""Clocks: notice that the clock of the day jumped, so that no living worker is taken for a dead one.

Holds end at a time of the day, because several machines look at them. When that clock jumps ahead (somebody sets it, a
machine wakes up) every hold seems to be over at once: whoever lives must get the time to renew it first. When it jumps
back, holds seem to last for hours: they are cut to the length that they are given for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

JUMP = timedelta(seconds=5)
"""What a clock may be corrected by at once without being called a jump."""


class ClockWatch:
    """Compares the clock of the day with one that only counts seconds; all clocks are its caller's."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._last: tuple[datetime, float] | None = None
        self._patient_until = 0.0

    def look(self, now: datetime, seconds: float) -> timedelta:
        """By how much the clock has jumped since the last look (zero: not at all); `seconds` count on their own."""
        last, self._last = self._last, (now, seconds)
        if last is None:
            return timedelta()
        jump = (now - last[0]) - timedelta(seconds=seconds - last[1])
        if abs(jump) < JUMP:
            return timedelta()
        if jump > timedelta():
            self._patient_until = seconds + self._grace_s
        return jump

    def patience_s(self, seconds: float) -> float:
        """How long holds are not to be judged yet, because those who live must be given the time to renew them."""
        return max(0.0, self._patient_until - seconds)
