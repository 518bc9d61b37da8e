"""When jobs are given up, and whether enough was tested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.flights.coverage import coverage
from lab.flights.starvation import FOREVER, FlightWait, StarvationRule, starved
from lab.flights.status import JobStatus

HOUR = 3600.0
RULE = StarvationRule()


def flight(ended: int, jobs: int, others_end_h: float, **waiting_h: float) -> FlightWait:
    """A flight that began at 0; times in hours."""
    return FlightWait(
        started=0.0,
        jobs=jobs,
        ended=ended,
        others_end=others_end_h * HOUR,
        waiting={job: end * HOUR for job, end in waiting_h.items()},
    )


@pytest.mark.parametrize(
    ("wait", "now_h", "given_up"),
    [
        (flight(9, 10, 2.0, last=20.0), 2.5, {"last"}),
        (flight(9, 10, 2.0, last=9.0), 2.5, set()),
        (flight(8, 10, 2.0, one=20.0, other=20.0), 2.5, set()),
        (flight(18, 20, 2.0, one=20.0, other=3.0), 2.5, {"one"}),
        (flight(9, 10, 0.2, last=3.0), 0.3, set()),
        (flight(9, 10, 2.0, last=61.0), 60.0, set()),
        (flight(9, 10, 2.0, last=61.0), 58.0, {"last"}),
        (flight(9, 10, 2.0, last=FOREVER), 2.5, set()),
        (flight(9, 10, 2.0, last=FOREVER), 6.1, {"last"}),
        (flight(0, 1, 0.0, only=1000.0), 0.1, set()),
    ],
)
def test_the_rule(wait: FlightWait, now_h: float, given_up: set[str]) -> None:
    found = starved(wait, now_h * HOUR, RULE)
    assert set(found) == given_up
    assert all(found.values()), "with the reason"
    assert starved(wait, now_h * HOUR, StarvationRule(factor=0)) == {}


times = st.floats(0, 1000)


@given(st.integers(1, 50), st.integers(0, 50), times, st.dictionaries(st.text("ab", min_size=1), times), times, times)
def test_waiting_less_never_starves_a_job_that_would_not_have_been(
    jobs: int, ended: int, others: float, waiting: dict[str, float], now: float, less: float
) -> None:
    wait = FlightWait(started=0, jobs=jobs, ended=ended, others_end=others * HOUR, waiting={})
    longer = {job: (others + end) * HOUR for job, end in waiting.items()}
    shorter = {job: max(others * HOUR, end - less * HOUR) for job, end in longer.items()}
    found = [
        set(starved(FlightWait(**{**vars(wait), "waiting": ends}), now * HOUR, RULE)) for ends in (longer, shorter)
    ]
    assert found[1] <= found[0]
    if ended < 0.9 * jobs:
        assert found[0] == set()


statuses = st.sampled_from(list(JobStatus))
arches = st.sampled_from(["amd64", "arm64"])


@given(st.lists(st.tuples(arches, statuses)), st.dictionaries(arches, st.floats(0, 1)))
def test_what_did_not_come_to_a_verdict_covers_nothing(
    jobs: list[tuple[str, JobStatus]], demands: dict[str, float]
) -> None:
    for one in coverage(jobs, demands):
        mine = [status for arch, status in jobs if arch == one.arch]
        assert (one.jobs, one.ran) == (len(mine), sum(status in (JobStatus.PASS, JobStatus.FAIL) for status in mine))
        if one.demanded > 0 and one.ran == 0:
            assert not one.enough, "untested is not covered, however little is demanded"
        if one.demanded == 0 or (one.ran == one.jobs and one.jobs):
            assert one.enough
        assert not (one.enough and one.lost)
        if all(status.final for status in mine):
            assert one.enough != one.lost, "once all has ended, it is known"
    passed = {
        one.arch: one
        for one in coverage([(arch, status if status.final else JobStatus.PASS) for arch, status in jobs], demands)
    }
    for one in coverage(jobs, demands):
        assert one.lost == (not passed[one.arch].enough), "lost is what no luck can mend"


def test_a_share_met_exactly_is_met() -> None:
    for jobs in range(1, 101):
        for ran in range(1, jobs + 1):
            statuses = [JobStatus.PASS] * ran + [JobStatus.BLOCKED] * (jobs - ran)
            [found] = coverage([("amd64", status) for status in statuses], {"amd64": ran / jobs})
            assert found.enough, (ran, jobs)


def test_a_flight_of_which_both_tests_starved_is_not_covered() -> None:
    """As OSSTest's flight 150946 was, and was pushed."""
    [found] = coverage([("amd64", JobStatus.STARVED)] * 2, {"amd64": 0.1})
    assert not found.enough
    assert found.lost
    assert str(found) == "amd64: 0 of 2 jobs came to a verdict, 10% are demanded"
    [going] = coverage([("amd64", JobStatus.RUNNING)] * 2, {"amd64": 0.1})
    assert (going.enough, going.lost) == (False, False)
    assert str(going) == "amd64: 0 of 2 jobs came to a verdict and 2 may still, 10% are demanded"
