"""Statuses: what holds for every walk and every sum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ended_steps, final_statuses, job_statuses, step_statuses

from lab.errors import Aborted, Blocked, ConfigError, HostDiedError, InfraError, LabBug, StepFailure
from lab.flights.status import (
    IllegalTransitionError,
    JobStatus,
    StepStatus,
    advance,
    exit_code,
    flight_status,
    job_status_of,
    step_status_of,
    worst,
)


@given(final_statuses, job_statuses)
def test_no_walk_leaves_a_final_state(current: JobStatus, to: JobStatus) -> None:
    with pytest.raises(IllegalTransitionError, match=f"from {current.value} to {to.value}"):
        advance(current, to)


@given(st.lists(job_statuses, max_size=12))
def test_a_walk_from_queued_meets_at_most_one_final_state_and_it_is_the_last(moves: list[JobStatus]) -> None:
    now, seen = JobStatus.QUEUED, [JobStatus.QUEUED]
    for to in moves:
        try:
            now = advance(now, to)
        except IllegalTransitionError:
            continue
        seen.append(now)
    assert not any(status.final for status in seen[:-1])


def test_every_state_can_be_reached_and_every_unfinished_one_can_be_aborted() -> None:
    reached, before = {JobStatus.QUEUED}, set()
    while reached != before:
        before = set(reached)
        reached |= {to for status in before for to in JobStatus if _may(status, to)}
    assert reached == set(JobStatus)
    assert all(_may(status, JobStatus.ABORTED) for status in JobStatus if not status.final)


def _may(current: JobStatus, to: JobStatus) -> bool:
    try:
        return advance(current, to) is to
    except IllegalTransitionError:
        return False


@given(st.lists(job_statuses), st.lists(job_statuses))
def test_the_worst_of_parts_is_the_worst_of_the_whole(left: list[JobStatus], right: list[JobStatus]) -> None:
    assert worst([worst(left), worst(right)]) is worst(left + right) is worst(right + left)


@given(job_statuses)
def test_the_worst_of_the_same_is_the_same(status: JobStatus) -> None:
    assert worst([status]) is worst([status, status]) is status


@given(st.lists(job_statuses, min_size=1))
def test_only_a_flight_whose_jobs_all_passed_is_a_pass(statuses: list[JobStatus]) -> None:
    passed = all(status is JobStatus.PASS for status in statuses)
    assert (flight_status(statuses) is JobStatus.PASS) == passed
    assert (exit_code(flight_status(statuses)) == 0) == passed


@given(st.lists(job_statuses, min_size=1))
def test_a_flight_is_final_iff_all_its_jobs_are(statuses: list[JobStatus]) -> None:
    assert flight_status(statuses).final == all(status.final for status in statuses)


@given(st.lists(job_statuses, min_size=1))
def test_an_unfinished_flight_is_queued_only_while_no_job_was_touched(statuses: list[JobStatus]) -> None:
    total = flight_status(statuses)
    assert (total is JobStatus.QUEUED) == all(status is JobStatus.QUEUED for status in statuses)
    assert total.final or total in (JobStatus.QUEUED, JobStatus.RUNNING)


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_has_an_exit_code_and_only_pass_has_zero(status: JobStatus) -> None:
    assert (exit_code(status) == 0) == (status is JobStatus.PASS)
    assert exit_code(status) != 2, "2 means that the command was wrong"


@given(st.lists(step_statuses), ended_steps)
def test_the_first_step_that_did_not_pass_decides(after: list[StepStatus], first: StepStatus) -> None:
    alone = job_status_of([first])
    assert job_status_of([StepStatus.PASS, StepStatus.SKIPPED, first, *after]) is (
        alone if alone is not JobStatus.PASS else job_status_of(after)
    )


@given(st.lists(step_statuses))
def test_an_ended_attempt_has_a_final_status(steps: list[StepStatus]) -> None:
    assert job_status_of(steps).final


def test_a_step_that_never_ended_makes_the_attempt_broken() -> None:
    assert job_status_of([StepStatus.PASS, StepStatus.RUNNING]) is JobStatus.BROKEN


@given(ended_steps)
def test_only_a_step_failure_takes_the_word_of_the_recipe_line(iffail: StepStatus) -> None:
    assert step_status_of(StepFailure("Xen did wrong"), iffail) is iffail
    for error in (
        TypeError("a mistake of ours"),
        AssertionError(),
        InfraError("disk"),
        HostDiedError("gone"),
        ConfigError("typo"),
        LabBug("bug"),
        OSError("no"),
        TimeoutError(),
        MemoryError(),
    ):
        assert step_status_of(error, iffail) is StepStatus.BROKEN
    assert step_status_of(Blocked("no build"), iffail) is StepStatus.BLOCKED
    assert step_status_of(Aborted("stopped"), iffail) is StepStatus.ABORTED
    assert step_status_of(KeyboardInterrupt(), iffail) is StepStatus.ABORTED
