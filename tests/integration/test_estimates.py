"""What is remembered of attempts that ended: how long they took, and whose hosts they used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from factories import PAIR, PASSES, a_host, doing, later, run_all, spec, start, submit

from lab.context import Lab
from lab.db import estimates, hosts
from lab.errors import InfraError, StepFailure
from lab.flights.steps import StepContext
from lab.hosts.durations import ANY_CLASS, Estimate, subjects
from lab.services.run_job import run_job

T = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT = Estimate(p50_s=1, p90_s=2)
DAY = 86_400.0


def remembered(lab: Lab) -> dict[tuple[str, str], list[float]]:
    with lab.reads() as session:
        return {key: list(value) for key, value in estimates.load_history(session, DEFAULT).samples.items()}


def usage(lab: Lab, now: datetime) -> dict[str, float]:
    with lab.reads() as session:
        return estimates.load_usage(session, half_life_s=DAY, now=now)


def test_a_pass_and_a_fail_are_remembered_by_job_recipe_and_class_of_host_and_a_broken_attempt_is_not(
    new_lab: Callable[..., Lab],
) -> None:
    def fails(ctx: StepContext) -> None:
        raise StepFailure("no")

    def breaks(ctx: StepContext) -> None:
        raise InfraError("no")

    lab = new_lab(retries=0)
    submit(lab, spec("passes"), spec("fails", doing(fails)), spec("breaks", doing(breaks)))
    for _ in range(2):
        for attempt, token in start(lab):
            run_job(later(lab, 100), attempt, token)
        with lab.sessions.begin() as session:
            for name in ("h1", "h2"):
                hosts.end_cleaning(session, name)
    found = remembered(lab)
    assert {subject for subject, _where in found} >= {"job:passes", "job:fails", f"recipe:{PASSES}"}
    assert not any("breaks" in subject for subject, _where in found)
    assert found["job:passes", "x86_64 equiv-a hvm"] == found["job:passes", ANY_CLASS]
    assert found["job:passes", ANY_CLASS] == [pytest.approx(100, abs=10)]


def test_a_tenant_is_charged_for_every_host_and_by_default_it_is_the_submitter(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"), a_host("h2"), a_host("h3"))
    submit(lab, spec("pair", PAIR), tenant="team")
    ((attempt, token),) = start(lab)
    run_job(later(lab, 50), attempt, token)
    submit(lab, spec("one"))
    run_all(lab)
    used = usage(lab, lab.clock())
    assert used["team"] == pytest.approx(100, abs=10)
    assert 0 <= used["tester"] < 10


def test_use_fades_and_a_clock_that_goes_back_changes_nothing(lab: Lab) -> None:
    def charge(seconds: float, now: datetime) -> None:
        with lab.sessions.begin() as session:
            estimates.charge(session, "team", seconds, half_life_s=DAY, now=now)

    charge(100, T)
    assert usage(lab, T) == {"team": 100}
    assert usage(lab, T + timedelta(days=2)) == {"team": 25}
    charge(10, T + timedelta(days=1))
    assert usage(lab, T + timedelta(days=1)) == {"team": 60}
    charge(10, T - timedelta(days=30))  # the clock is a month back
    assert usage(lab, T - timedelta(days=30)) == {"team": 70}
    charge(-5, T + timedelta(days=1))
    assert usage(lab, T + timedelta(days=1)) == {"team": 70}


def test_attempts_that_end_at_one_time_are_all_remembered(lab: Lab) -> None:
    failures: list[BaseException] = []

    def settle(number: int) -> None:
        try:
            with lab.sessions.begin() as session:
                estimates.add_duration(session, job=f"j{number % 2}", recipe="r", place="p", seconds=number, now=T)
                estimates.charge(session, "team", 1, half_life_s=DAY, now=T)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=settle, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert usage(lab, T) == {"team": 8}
    recipe = subjects("j0", "r")[1]
    assert sorted(remembered(lab)[recipe, ANY_CLASS]) == list(range(8))
