"""The breaker of a site: shut while it is silent, open to work as soon as it answers, and never asked too often."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.breaker import CLOSED, Breaker, BreakerPolicy, Circuit, answer, fail, told, wait

policies = st.builds(
    BreakerPolicy,
    failures=st.integers(1, 4),
    first_s=st.floats(0.5, 20),
    longest_s=st.floats(20, 600),
    answer_s=st.floats(0.5, 60),
)
happenings = st.lists(
    st.tuples(st.sampled_from(["fail", "answer", "wait", "alive"]), st.floats(-100, 300)), max_size=60
)


def lived(happened: list[tuple[str, float]], policy: BreakerPolicy, breaker: Breaker = CLOSED) -> list[Breaker]:
    """The breaker after each happening; times may go back."""
    now, states = 1e9, [breaker]
    for what, later in happened:
        now += later
        match what:
            case "fail":
                breaker = fail(breaker, now, "no worker took it", policy)
            case "answer":
                breaker = answer(breaker, now)
            case _:
                breaker, probe = wait(breaker, now, policy, alive=what == "alive")
                assert not probe or breaker.state is Circuit.HALF_OPEN
        states.append(breaker)
    return states


@given(happenings, policies)
def test_it_lets_work_through_exactly_when_closed_and_says_why_not(
    happened: list[tuple[str, float]], policy: BreakerPolicy
) -> None:
    for (what, _), (before, after) in zip(happened, pairwise(lived(happened, policy)), strict=True):
        assert after.lets_through == (after.state is Circuit.CLOSED)
        assert bool(told("x", after)) != after.lets_through
        if what == "answer":
            assert after.lets_through, "an answer closes it, whatever was before"
        elif what != "fail":
            assert not (after.lets_through and not before.lets_through), "time alone closes nothing"


@given(policies)
def test_it_opens_after_so_many_failures_in_a_row_and_an_answer_between_them_counts(policy: BreakerPolicy) -> None:
    breaker = CLOSED
    for _ in range(policy.failures - 1):
        breaker = fail(breaker, 100.0, "silent", policy)
        assert breaker.lets_through
    assert answer(breaker, 100.0).failures == 0
    shut = fail(breaker, 101.0, "silent", policy)
    assert not shut.lets_through
    assert fail(shut, 200.0, "still silent", policy) == shut, "what was sent before it opened tells nothing new"


@given(policies, st.floats(0.1, 5))
def test_a_silent_site_is_probed_seldom_but_never_given_up(policy: BreakerPolicy, tick: float) -> None:
    breaker, probes, now = fail(CLOSED, 0.0, "silent", BreakerPolicy(failures=1)), [], 0.0
    for _ in range(2000):
        now += tick
        breaker, probe = wait(breaker, now, policy)
        if probe:
            probes.append(now)
    gaps = [after - before for before, after in pairwise(probes)]
    assert now < 700 or probes
    assert all(gap <= policy.longest_s + policy.answer_s + 2 * tick for gap in gaps), "it recovers in bounded time"
    assert all(gap >= min(policy.first_s, policy.longest_s) for gap in gaps)
    late = gaps[8:]
    assert all(gap >= min(policy.longest_s, policy.first_s * 2**8) for gap in late), "and is not pestered"


@given(happenings, policies)
def test_signs_of_life_bring_a_probe_at_the_latest_after_the_short_pause(
    happened: list[tuple[str, float]], policy: BreakerPolicy
) -> None:
    breaker = lived(happened, policy)[-1]
    now = 1e9 + sum(later for _, later in happened)
    if breaker.state is not Circuit.OPEN:
        return
    breaker, at_once = wait(breaker, now, policy, alive=True)
    _, soon = wait(breaker, now + policy.first_s + 0.001, policy, alive=True)
    assert at_once or soon


@given(happenings, policies, st.floats(1, 1e8))
def test_a_clock_set_back_delays_nothing_for_long(
    happened: list[tuple[str, float]], policy: BreakerPolicy, back: float
) -> None:
    breaker = lived(happened, policy)[-1]
    now, probed = 1e9 - back, breaker.state is Circuit.CLOSED
    for _ in range(4):
        breaker, probe = wait(breaker, now, policy)
        probed |= probe
        now += policy.longest_s + policy.answer_s
    assert probed


def test_the_course_of_an_outage() -> None:
    policy = BreakerPolicy(first_s=5, longest_s=60, answer_s=15)
    shut = fail(CLOSED, 0.0, "no worker took 7.build within 60 s", policy)
    assert told("cambridge", shut) == (
        "site cambridge does not answer (no worker took 7.build within 60 s); it is asked again soon"
    )
    assert wait(shut, 4.9, policy) == (shut, False)
    half, probe = wait(shut, 5.0, policy)
    assert (half.state, probe) == (Circuit.HALF_OPEN, True)
    assert not half.lets_through
    assert wait(half, 19.9, policy) == (half, False), "one probe at a time"
    again, probe = wait(half, 20.0, policy)
    assert (again.state, again.until, again.since, probe) == (Circuit.OPEN, 30.0, 0.0, False)
    well = answer(again, 25.0)
    assert (well.lets_through, well.since, told("cambridge", well)) == (True, 25.0, "")
    assert answer(well, 26.0) == well


@pytest.mark.parametrize("state", list(Circuit))
def test_an_answer_that_changes_nothing_writes_nothing(state: Circuit) -> None:
    breaker = Breaker(state=state, since=3.0)
    assert (answer(breaker, 4.0) is breaker) == (state is Circuit.CLOSED)
