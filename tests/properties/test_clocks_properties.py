"""A clock that jumps is noticed; one that is only slewed, or looked at seldom, is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lab.services.clocks import JUMP, ClockWatch

T = datetime(2026, 1, 1, tzinfo=UTC)
pauses = st.floats(0.001, 1e5)


@given(st.lists(pauses, min_size=1, max_size=20), st.floats(-1e-4, 1e-4))
def test_a_clock_that_runs_a_little_fast_or_slow_never_jumps(steps: list[float], drift: float) -> None:
    watch, seconds, now = ClockWatch(10), 0.0, T
    watch.look(now, seconds)
    for step in steps:
        seconds, now = seconds + step, now + timedelta(seconds=step * (1 + min(drift, 4 / step)))
        if abs(step * drift) < JUMP.total_seconds():
            assert not watch.look(now, seconds)
            assert watch.patience_s(seconds) == 0
        else:
            watch.look(now, seconds)
            return


@given(pauses, st.floats(6, 1e7), pauses)
def test_a_jump_ahead_gives_time_and_a_jump_back_does_not(step: float, jump: float, later: float) -> None:
    for sign in (1, -1):
        watch = ClockWatch(10)
        watch.look(T, 0.0)
        seen = watch.look(T + timedelta(seconds=step + sign * jump), step)
        assert abs(seen.total_seconds() - sign * jump) < 0.01
        assert watch.patience_s(step) == (10 if sign > 0 else 0)
        again = watch.look(T + timedelta(seconds=step + sign * jump + later), step + later)
        assert not again, "it is a jump once"
        assert watch.patience_s(step + 10) == 0
