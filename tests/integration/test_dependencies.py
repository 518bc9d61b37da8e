"""Jobs that need a build: they wait for it, get what it gave, and are blocked when it did not pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import BOOT, FakeBuilds, a_recipe, a_step, flight_of, job_of, run_all, spec, start, submit

import testcases
from lab.context import Lab
from lab.errors import ConfigError, Evidence, StepFailure
from lab.flights import recipes
from lab.flights.builds import RECIPE
from lab.flights.model import JobSpec
from lab.flights.recipe import run
from lab.flights.status import JobStatus
from lab.flights.steps import StepContext, load_all
from lab.services.settle import abort_flight

load_all(testcases)
load_all(recipes)

SEEN: list[str] = []


def _look(ctx: StepContext) -> None:
    SEEN.append(ctx.runvars.get("build_key") + " " + ctx.runvars.get("tools_key"))


def looks() -> str:
    """A recipe whose step reads what the build gave."""
    return a_recipe(run(BOOT), run(a_step(_look)))


def build(name: str = "build-x", revision: str = "debian-bookworm", **more: str) -> JobSpec:
    return spec(name, RECIPE, tree="xen", revision=revision, **more)


def builds_of(lab: Lab) -> FakeBuilds:
    assert isinstance(lab.builds, FakeBuilds)
    return lab.builds


def test_a_job_waits_for_its_build_and_gets_what_it_gave(lab: Lab) -> None:
    SEEN.clear()
    number = submit(lab, build(), spec("test", looks(), xenbuildjob="build-x"), spec("other", looks()))
    started = run_all(lab)
    assert started == [JobStatus.PASS, JobStatus.PASS]
    assert job_of(lab, number, "test").reason == "waiting for build-x"
    assert SEEN == [" "]
    built = job_of(lab, number, "build-x")
    assert built.last is not None
    assert built.last.hosts == {}
    assert {step.host for step in built.last.steps} == {None}
    assert built.values["build_key"] == "hypervisor-debian-bookworm"
    assert run_all(lab) == [JobStatus.PASS]
    assert SEEN[-1] == "hypervisor-debian-bookworm tools-debian-bookworm"
    assert flight_of(lab, number).status is JobStatus.PASS


def test_when_a_job_is_expected_that_waits_for_its_build_is_told(lab: Lab) -> None:
    number = submit(lab, build(), spec("test", looks(), xenbuildjob="build-x"))
    start(lab)
    start(lab)  # by now the build runs
    wait = job_of(lab, number, "test").wait
    assert wait is not None
    assert (wait.kind, wait.text, wait.place) == ("needs_job", "waiting for build-x", None)
    assert wait.data == {"needs": [f"{number}.build-x"]}
    assert wait.start is not None
    until_built = (wait.start.p50 - lab.clock()).total_seconds()
    assert until_built == pytest.approx(lab.scheduler.default_duration_s, abs=30)
    assert wait.start.p50 < wait.start.p90
    assert wait.hosts == {"host": "h1"}


def test_jobs_of_a_build_that_failed_are_blocked_and_say_why(lab: Lab) -> None:
    evidence = Evidence(command="make", exit_status=2, output="common/page.c:12:3: error: expected ';'")
    builds_of(lab).errors["broken"] = StepFailure("common/page.c:12:3: error: expected ';'", evidence=evidence)
    number = submit(lab, build(revision="broken"), spec("test", looks(), xenbuildjob="build-x"))
    assert run_all(lab) == [JobStatus.FAIL]
    assert start(lab) == []
    built, test = flight_of(lab, number).jobs
    assert built.reason == "xen-build/hypervisor: common/page.c:12:3: error: expected ';'"
    assert built.last is not None
    assert built.last.steps[0].evidence["output"].startswith("common/page.c")
    assert test.status is JobStatus.BLOCKED
    assert test.reason.startswith("build-x ended as fail: xen-build/hypervisor: common/page.c")
    assert flight_of(lab, number).finished is not None
    saved = Path(lab.logs / str(number) / "build-x" / "1" / "01.xen-build-hypervisor.build.log")
    assert saved.read_text() == "make: done"


def test_one_build_runs_at_a_time(lab: Lab) -> None:
    number = submit(lab, build("build-a"), build("build-b"), build("build-c"))
    assert len(start(lab)) == 1
    assert start(lab) == []
    reasons = [job.reason for job in flight_of(lab, number).jobs]
    assert reasons == ["", "waiting for another build to end", "waiting for another build to end; 1 ahead of it"]


def test_a_build_of_an_earlier_flight_may_be_named(lab: Lab) -> None:
    SEEN.clear()
    first = submit(lab, build())
    run_all(lab)
    submit(lab, spec("test", looks(), xenbuildjob=f"{first}.build-x"))
    assert run_all(lab) == [JobStatus.PASS]
    assert SEEN == ["hypervisor-debian-bookworm tools-debian-bookworm"]


def test_a_build_that_was_aborted_blocks_its_jobs(lab: Lab) -> None:
    first = submit(lab, build())
    with lab.sessions.begin() as session:
        abort_flight(session, lab, first, reason="enough")
    number = submit(lab, spec("test", looks(), xenbuildjob=f"{first}.build-x"))
    assert start(lab) == []
    assert job_of(lab, number, "test").reason == f"{first}.build-x ended as aborted: enough"


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([spec("test", xenbuildjob="build-y")], "build-y, which it needs, does not exist"),
        ([spec("a"), spec("test", xenbuildjob="a")], "a, which it needs, is no build job"),
        ([spec("test", xenbuildjob="99.build")], "99.build, which it needs, does not exist"),
        ([spec("test", xenbuildjob="../x")], "is not the name of a job"),
        ([build(xen_config="fast")], "not one of default, debug, xsm"),
        ([build(arch="sparc")], "not one of amd64, arm64"),
        ([spec("build-x", RECIPE, tree="linux", revision="v6")], "there is no source tree 'linux'"),
    ],
)
def test_what_could_never_run_is_refused(lab: Lab, jobs: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        submit(lab, *jobs)
