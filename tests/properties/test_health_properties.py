"""When a host is distrusted: rules that blame no host for what is not its doing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.health import Rules, Seen, Tally, burn_in_after_s, by_chance, judge, power_failed
from lab.hosts.model import Health

RULES = Rules()
NOTHING = Tally()


def seen(*words: str) -> list[Seen]:
    """The newest first: what is `ok`, `broke` and works elsewhere, broke `everywhere`; a `check`, a `bad` one."""
    return [
        Seen(
            attempt=100 - number,
            job=f"{number}.job",
            broken=word in ("broke", "everywhere", "bad"),
            elsewhere="9.job" if word == "broke" else "",
            check=word in ("check", "bad"),
        )
        for number, word in enumerate(words)
    ]


words = st.lists(st.sampled_from(["ok", "broke", "everywhere", "check", "bad"]), max_size=8)
tallies = st.builds(
    lambda jobs, share: Tally(jobs=jobs, broken=int(jobs * share)), st.integers(0, 60), st.floats(0, 1)
)


@pytest.mark.parametrize(
    ("health", "what", "becomes"),
    [
        (Health.GOOD, ("broke", "broke"), Health.QUARANTINED),
        (Health.GOOD, ("broke", "broke", "ok"), Health.QUARANTINED),
        (Health.SUSPECT, ("broke", "broke"), Health.QUARANTINED),
        (Health.GOOD, ("broke",), Health.SUSPECT),
        (Health.GOOD, ("broke", "ok", "broke"), Health.SUSPECT),
        (Health.GOOD, ("broke", "everywhere", "broke"), Health.SUSPECT),
        (Health.SUSPECT, ("broke",), None),
        (Health.GOOD, ("everywhere", "everywhere", "everywhere"), None),
        (Health.GOOD, ("ok", "broke", "broke"), None),
        (Health.SUSPECT, ("ok", "broke"), Health.GOOD),
        (Health.GOOD, (), None),
        (Health.BURN_IN, ("check", "check", "check"), Health.GOOD),
        (Health.BURN_IN, ("check", "check"), None),
        (Health.BURN_IN, ("bad", "check", "check"), Health.QUARANTINED),
        (Health.BURN_IN, ("check", "ok", "check", "check"), Health.GOOD),
    ],
)
def test_the_rules(health: Health, what: tuple[str, ...], becomes: Health | None) -> None:
    verdict = judge(health, seen(*what), NOTHING, NOTHING, RULES, by_lab=True)
    assert (verdict and verdict.health) == becomes
    if verdict:
        assert verdict.reason
        assert verdict.evidence


@given(
    st.sampled_from([Health.QUARANTINED, Health.MAINTENANCE, Health.RETIRED]), words, tallies, tallies, st.booleans()
)
def test_no_rule_leaves_what_people_have_decided(
    health: Health, what: list[str], own: Tally, equals: Tally, by_lab: bool
) -> None:
    assert judge(health, seen(*what), own, equals, RULES, by_lab=by_lab) is None


@given(words)
def test_only_the_lab_clears_whom_the_lab_suspects(what: list[str]) -> None:
    verdict = judge(Health.SUSPECT, seen(*what), NOTHING, NOTHING, RULES, by_lab=False)
    assert verdict is None or verdict.health is not Health.GOOD


@given(words, st.integers(1, 4))
def test_what_breaks_everywhere_quarantines_nobody(what: list[str], in_a_row: int) -> None:
    innocent = ["everywhere" if word in ("broke", "bad") else word for word in what]
    verdict = judge(Health.GOOD, seen(*innocent), NOTHING, NOTHING, Rules(in_a_row=in_a_row), by_lab=True)
    assert verdict is None


@given(tallies, tallies)
def test_a_chance_is_a_probability_and_worse_hosts_are_less_likely(own: Tally, equals: Tally) -> None:
    chance = by_chance(own, equals)
    assert 0.0 <= chance <= 1.0
    if own.broken < own.jobs and equals.broken:
        worse = by_chance(
            Tally(jobs=own.jobs, broken=own.broken + 1),
            Tally(jobs=equals.jobs, broken=equals.broken - 1),
        )
        assert worse <= chance + 1e-12


def test_a_host_that_breaks_far_more_often_than_its_equals_is_quarantined() -> None:
    own, equals = Tally(jobs=12, broken=7), Tally(jobs=60, broken=2)
    verdict = judge(Health.GOOD, seen("everywhere"), own, equals, RULES, by_lab=True)
    assert verdict is not None
    assert verdict.health is Health.QUARANTINED
    assert "7 of 12 jobs broke on it that work elsewhere, 2 of 60 on its equals" in verdict.reason
    assert judge(Health.GOOD, seen(), Tally(jobs=9, broken=9), equals, RULES, by_lab=True) is None, "too few"
    assert judge(Health.GOOD, seen(), Tally(jobs=12, broken=1), equals, RULES, by_lab=True) is None


def test_like_hosts_are_called_outliers_no_more_often_than_promised() -> None:
    """10,000 hosts, each just like its equals."""
    chance = random.Random(1)
    wrong = 0
    for _ in range(10_000):
        rate = chance.choice([0.02, 0.1, 0.3])
        own = Tally(jobs=20, broken=sum(chance.random() < rate for _ in range(20)))
        equals = Tally(jobs=60, broken=sum(chance.random() < rate for _ in range(60)))
        wrong += by_chance(own, equals) <= 0.01
    assert wrong <= 10_000 * 0.01


def test_like_hosts_are_rarely_called_outliers_though_they_are_judged_anew_at_each_job_that_breaks() -> None:
    """A month of 100 jobs on a host and 300 on its equals, 300 times: fewer than one in fifty are ever called one."""
    chance, wrong = random.Random(1), 0
    for number in range(300):
        rate, own, equals, called = (0.02, 0.1, 0.2)[number % 3], NOTHING, NOTHING, False
        for job in range(400):
            breaks = chance.random() < rate
            if job % 4:
                equals = Tally(jobs=equals.jobs + 1, broken=equals.broken + breaks)
                continue
            own = Tally(jobs=own.jobs + 1, broken=own.broken + breaks)
            verdict = judge(Health.GOOD, (), own, equals, RULES, by_lab=True) if breaks else None
            called = called or verdict is not None
        wrong += called
    assert wrong < 300 / 50


@given(st.sampled_from(list(Health)), st.booleans())
def test_a_power_command_that_fails_quarantines_all_but_what_people_have_in_hand(health: Health, by_lab: bool) -> None:
    verdict = power_failed(health, "no answer", during="7.job", by_lab=by_lab)
    theirs = health in (Health.MAINTENANCE, Health.RETIRED) or (health is Health.QUARANTINED and not by_lab)
    assert (verdict is None) == theirs
    if verdict is not None:
        assert (verdict.health, verdict.reason) == (Health.QUARANTINED, "no answer")
        assert verdict.evidence["jobs"] == ["7.job"]


@given(st.integers(0, 100))
def test_each_burn_in_that_failed_makes_the_next_one_later_within_bounds(failed: int) -> None:
    assert RULES.burn_in_after_s <= burn_in_after_s(failed, RULES) <= burn_in_after_s(failed + 1, RULES)
    assert burn_in_after_s(failed, RULES) <= 64 * RULES.burn_in_after_s
