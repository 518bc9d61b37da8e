from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lab.flights.board import GateState, gate_state, streak_start

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STATUSES = st.lists(
    st.sampled_from(["pass", "fail", "broken", "skipped", "blocked", "aborted", "running"]), max_size=12
)


def outcomes(statuses: list[str]) -> list[tuple[int, datetime, str]]:
    """The newest first: flight 100, 99, …"""
    return [(100 - age, NOW - timedelta(days=age), status) for age, status in enumerate(statuses)]


@given(STATUSES)
def test_a_streak_begins_with_a_failure_and_has_no_pass_after_it(statuses: list[str]) -> None:
    found = streak_start(outcomes(statuses))
    if found is None:
        before_pass = statuses[: statuses.index("pass")] if "pass" in statuses else statuses
        assert not {"fail", "broken"} & set(before_pass)
        return
    flight, at, at_least = found
    age = 100 - flight
    assert at == NOW - timedelta(days=age)
    assert statuses[age] in ("fail", "broken")
    assert "pass" not in statuses[: age + 1]
    assert at_least == ("pass" not in statuses)
    # nothing older fails without a pass between
    rest = statuses[age + 1 :]
    assert not {"fail", "broken"} & set(rest[: rest.index("pass")] if "pass" in rest else rest)


def test_a_run_that_tells_nothing_is_passed_over() -> None:
    assert streak_start(outcomes(["fail", "skipped", "fail", "blocked", "pass"])) == (
        98,
        NOW - timedelta(days=2),
        False,
    )
    assert streak_start(outcomes(["skipped", "pass"])) is None
    assert streak_start([]) is None


def test_a_persons_hold_is_seen_first_then_that_nothing_was_decided() -> None:
    assert gate_state(ran=True, decided="advance", broken=True, stopped=True) is GateState.STOPPED
    assert gate_state(ran=True, decided="advance", broken=True, stopped=False) is GateState.BROKEN
    assert gate_state(ran=True, decided="advance", broken=False, stopped=False) is GateState.OPEN
    assert gate_state(ran=True, decided="hold", broken=False, stopped=False) is GateState.HELD
    assert gate_state(ran=True, decided=None, broken=False, stopped=False) is GateState.TESTING
    assert gate_state(ran=False, decided=None, broken=False, stopped=False) is GateState.UNTESTED
