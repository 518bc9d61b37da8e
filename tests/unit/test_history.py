from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lab.flights.history import Run, by_class, class_view, rate_of, wilson

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_run(number: int, status: str, *hosts: str, seconds: float | None = 60.0) -> Run:
    return Run(
        flight=number, branch="b", job="j", attempt=1, newest=True, status=status, hosts=hosts,
        started=NOW + timedelta(hours=number), seconds=seconds,
    )  # fmt: skip


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_interval_holds_the_share_and_shrinks_with_more_runs(passed: int, failed: int) -> None:
    low, high = wilson(passed, passed + failed)
    assert 0 <= low <= high <= 1
    if passed + failed:
        assert low - 1e-9 <= passed / (passed + failed) <= high + 1e-9
        low4, high4 = wilson(4 * passed, 4 * (passed + failed))
        assert high4 - low4 < high - low
    # what is said of passes is said of failures, the other way round
    other = wilson(failed, passed + failed)
    assert abs(other[0] - (1 - high)) < 1e-9
    assert abs(other[1] - (1 - low)) < 1e-9


def test_what_tells_nothing_of_the_product_is_no_failure() -> None:
    rate = rate_of(["pass", "fail", "broken", "blocked", "aborted", "skipped", "running"])
    assert (rate.passed, rate.failed, rate.other, rate.share) == (1, 1, 5, 0.5)
    assert rate_of(["broken"]).share is None
    assert class_view(by_class([a_run(1, "broken", "h")], {})[0])["interval95"] is None


@given(st.lists(st.tuples(st.sampled_from(["pass", "fail", "broken"]), st.sampled_from(["a1", "a2", "b1", ""]))))
def test_every_run_counts_for_exactly_one_class(seen: list[tuple[str, str]]) -> None:
    runs = [a_run(number, status, *([host] if host else [])) for number, (status, host) in enumerate(seen)]
    rates = by_class(runs, {"a1": "a", "a2": "a", "b1": "b"})
    assert sum(one.rate.told + one.rate.other for one in rates) == len(runs)
    assert {one.host_class for one in rates} == {host[:1] for _, host in seen}
    for one in rates:
        assert one.rate == rate_of(status for status, host in seen if host[:1] == one.host_class)


def test_durations_are_those_of_passes() -> None:
    runs = [a_run(n, "pass", "h", seconds=float(n)) for n in range(1, 11)]
    runs += [a_run(11, "fail", "h", seconds=999.0), a_run(12, "pass", "h", seconds=None)]
    (one,) = by_class(runs, {"h": "c"})
    assert (one.p50_s, one.p90_s) == (6.0, 10.0)
