from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from lab.flights.builds import RECIPE
from lab.flights.comparison import Change, JobOutline, Outline, StepOutline, compare, comparison_view
from lab.flights.model import FlightSummary
from lab.flights.status import Blessing, JobStatus

NOTHING: Mapping[str, str] = MappingProxyType({})


def a_flight(number: int, *jobs: JobOutline) -> Outline:
    summary = FlightSummary(
        id=number, branch="b", intended=Blessing.REAL, blessing=Blessing.REAL, status=JobStatus.PASS,
        started=datetime(2026, 3, 1, tzinfo=UTC), finished=None, submitter="", tenant="", note="", counts={},
    )  # fmt: skip
    return Outline(flight=summary, jobs={job.name: job for job in jobs})


def a_job(
    name: str, status: str, *steps: StepOutline, hosts: tuple[str, ...] = ("h",), settings: Mapping[str, str] = NOTHING
) -> JobOutline:
    return JobOutline(
        name=name, recipe="test-xl", status=status, reason="", hosts=hosts, settings=settings, steps=steps
    )


def a_step(testid: str, status: str, seconds: float | None = 10.0) -> StepOutline:
    return StepOutline(testid=testid, stepno=1, status=status, seconds=seconds, reason="")


STATUS = st.sampled_from([status.value for status in JobStatus])
STEP = st.builds(a_step, st.sampled_from("wxyz"), st.sampled_from(["pass", "fail", "broken", "skipped", "running"]),
                 st.none() | st.floats(0, 1000))  # fmt: skip
JOB = st.builds(
    lambda name, status, steps: a_job(name, status, *{step.testid: step for step in steps}.values()),
    st.sampled_from("abcde"), STATUS, st.lists(STEP, max_size=4),
)  # fmt: skip
FLIGHT = st.lists(JOB, max_size=5).map(lambda jobs: a_flight(1, *jobs))
TURNED = {
    Change.WORSE: Change.BETTER,
    Change.BETTER: Change.WORSE,
    Change.ADDED: Change.REMOVED,
    Change.REMOVED: Change.ADDED,
    Change.OTHER: Change.OTHER,
}


@given(FLIGHT)
def test_a_flight_differs_from_itself_in_nothing(flight: Outline) -> None:
    one = compare(flight, flight)
    assert (one.jobs, one.revisions, one.settings, one.durations, one.same) == ((), (), (), (), len(flight.jobs))


@given(FLIGHT, FLIGHT)
def test_the_other_way_round_tells_the_opposite(a: Outline, b: Outline) -> None:
    there, back = compare(a, b), compare(b, a)
    assert {job.name: TURNED[job.change] for job in there.jobs} == {job.name: job.change for job in back.jobs}
    assert there.same == back.same
    assert {(one.job, one.testid) for one in there.durations} == {(one.job, one.testid) for one in back.durations}
    assert there.same + len(there.jobs) == len({*a.jobs, *b.jobs})
    comparison_view(there)


def test_what_became_worse_comes_first_with_the_steps_that_did() -> None:
    a = a_flight(
        1, a_job("x", "fail", a_step("s", "fail")), a_job("y", "pass", a_step("s", "pass"), a_step("t", "pass"))
    )
    b = a_flight(
        2, a_job("x", "pass", a_step("s", "pass")), a_job("y", "fail", a_step("s", "pass"), a_step("t", "fail"))
    )
    one = compare(a, b)
    assert [(job.name, job.change) for job in one.jobs] == [("y", Change.WORSE), ("x", Change.BETTER)]
    assert [(step.testid, step.change) for step in one.jobs[0].steps] == [("t", Change.WORSE)]


def test_a_step_that_was_not_reached_is_no_difference_unless_it_went_wrong() -> None:
    a = a_flight(1, a_job("x", "pass", a_step("s", "pass"), a_step("t", "pass")))
    b = a_flight(2, a_job("x", "fail", a_step("s", "fail"), a_step("u", "broken")))
    assert {step.testid for step in compare(a, b).jobs[0].steps} == {"s", "u"}


def test_jobs_that_are_in_one_flight_only_are_told() -> None:
    one = compare(a_flight(1, a_job("x", "pass")), a_flight(2, a_job("y", "pass")))
    assert {(job.name, job.change) for job in one.jobs} == {("x", Change.REMOVED), ("y", Change.ADDED)}


def test_revisions_and_settings_that_differ_alike_stand_together() -> None:
    def builds(revision: str, commit: str, mem: str) -> list[JobOutline]:
        job = a_job("", "pass", settings={"tree": "xen", "revision": revision, "mem": mem, "same": "1"})
        return [replace(job, name=name, recipe=RECIPE, commit=commit) for name in ("build-1", "build-2")]

    one = compare(a_flight(1, *builds("master", "aaa", "512")), a_flight(2, *builds("master", "bbb", "1024")))
    (revision,), (setting,) = one.revisions, one.settings
    assert (revision.name, revision.a, revision.b, revision.jobs) == ("xen", "aaa", "bbb", ("build-1", "build-2"))
    assert (setting.name, setting.a, setting.b) == ("mem", "512", "1024")
    # what was asked for counts while nothing is known to be built
    (asked,) = compare(a_flight(1, *builds("v1", "", "1")), a_flight(2, *builds("v2", "", "1"))).revisions
    assert (asked.a, asked.b) == ("v1", "v2")


def test_durations_differ_much_by_their_share_and_by_seconds() -> None:
    def flight(number: int, host: str, *seconds: float) -> Outline:
        return a_flight(
            number, a_job("j", "pass", *(a_step(f"s{n}", "pass", s) for n, s in enumerate(seconds)), hosts=(host,))
        )

    one = compare(flight(1, "h1", 100, 100, 1, 100), flight(2, "h2", 149, 151, 3, 40), {"h1": "c", "h2": "c"})
    assert [(each.testid, each.alike) for each in one.durations] == [("s1", True), ("s3", True)]
    assert not any(each.alike for each in compare(flight(1, "h1", 100), flight(2, "h2", 300)).durations)
