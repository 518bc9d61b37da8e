"""Estimates from history: always between the least and the most that was seen, and the newest runs weigh most."""

from __future__ import annotations

from factories import a_host
from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.durations import (
    ANY_CLASS,
    KEPT,
    Estimate,
    History,
    host_class,
    remembered,
    spread_of,
    still_to_go,
    subjects,
)
from lab.hosts.usage import faded

DEFAULT = Estimate(p50_s=900, p90_s=3600)
seconds = st.floats(0.01, 1e6)
runs = st.lists(seconds, min_size=1, max_size=KEPT)


@given(runs)
def test_a_spread_lies_within_what_was_seen_and_is_never_a_point(samples: list[float]) -> None:
    spread = spread_of(samples, DEFAULT)
    assert min(samples) <= spread.p50_s <= max(samples)
    assert spread.p50_s < spread.p90_s <= max(samples) * 1.5


@given(runs, st.floats(1.0, 100))
def test_longer_runs_make_no_shorter_estimate(samples: list[float], times: float) -> None:
    before, after = spread_of(samples, DEFAULT), spread_of([sample * times for sample in samples], DEFAULT)
    assert after.p50_s >= before.p50_s
    assert after.p90_s >= before.p90_s


@given(runs, st.floats(0, 1e7))
def test_what_is_left_is_never_nothing_and_never_more_than_has_passed_would_suggest(
    samples: list[float], elapsed: float
) -> None:
    left = still_to_go(samples, elapsed, DEFAULT)
    assert 0 < left.p50_s <= left.p90_s
    assert left.p50_s <= max(*samples, elapsed) * 1.1


@given(runs)
def test_nothing_has_passed_means_the_whole_is_left(samples: list[float]) -> None:
    assert still_to_go(samples, 0.0, DEFAULT).p50_s == spread_of(samples, DEFAULT).p50_s


@given(st.lists(seconds, max_size=200))
def test_memory_is_bounded_and_keeps_the_newest(all_runs: list[float]) -> None:
    kept: list[float] = []
    for run in all_runs:
        kept = remembered(kept, run)
    assert kept == [round(run, 3) for run in all_runs[::-1][:KEPT]]


def test_the_newest_runs_decide_soon() -> None:
    samples = [100.0] * 20
    for _ in range(12):
        samples = remembered(samples, 10.0)
    assert spread_of(samples, DEFAULT).p50_s == 10.0


def test_the_nearest_history_is_taken_and_a_default_when_there_is_none() -> None:
    job, recipe = subjects("j", "r")
    history = History(samples={(job, "fast"): [10], (job, ANY_CLASS): [20], (recipe, "slow"): [30]}, default=DEFAULT)
    assert [history.expected("j", "r", place).p50_s for place in ("fast", "other")] == [10, 20]
    assert history.expected("k", "r", "slow").p50_s == 30
    assert history.expected("k", "r", "fast") == DEFAULT
    assert history.left("k", "r", "fast", 100).p50_s == DEFAULT.p50_s - 100


def test_hosts_of_one_class_have_the_same_architecture_and_flags_and_its_name_is_bounded() -> None:
    assert host_class(a_host("h1", "b", "a")) == host_class(a_host("h2", "a", "b")) == "x86_64 a b"
    assert host_class(a_host("h1", arch="arm64")) != host_class(a_host("h1"))
    many = [host_class(a_host("h", *(f"flag-{n}" for n in range(count)))) for count in (100, 101)]
    assert [len(name) <= 128 for name in many] == [True, True]
    assert many[0] != many[1]


@given(st.floats(0, 1e9), st.floats(-1e6, 1e9), st.floats(1, 1e7))
def test_use_fades_and_never_grows(used: float, elapsed: float, half_life: float) -> None:
    assert 0 <= faded(used, elapsed, half_life) <= used
    assert faded(used, half_life, half_life) == used / 2
