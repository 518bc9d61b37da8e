"""What a bisection repeats, and what it reads in the flights that do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lab.errors import ConfigError
from lab.flights.bisection import Outcome
from lab.flights.bisection_runs import (
    Bisection,
    BisectionState,
    Hosts,
    ProbeRun,
    Result,
    compared,
    histories_json,
    make_template,
    observations,
    on_hosts,
    probe_specs,
    read_histories,
    result_of,
)
from lab.flights.builds import RECIPE
from lab.flights.model import Attempt, Job, JobSpec, Runvar, StepResult
from lab.flights.revision_graph import Commit, history_of
from lab.flights.status import JobStatus, StepStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(status: JobStatus, reason: str = "", **steps: tuple[StepStatus, str]) -> Job:
    results = tuple(
        StepResult(stepno=number, testid=testid, step="s", status=step, started=NOW, reason=why)
        for number, (testid, (step, why)) in enumerate(steps.items(), 1)
    )
    attempt = Attempt(id=1, number=1, status=status, hosts={"host": "h"}, started=NOW, steps=results)
    return Job(flight=1, name="test", recipe="test-xl", status=status, reason=reason, attempts=(attempt,))


S, J = StepStatus, JobStatus


@pytest.mark.parametrize(
    ("ended", "result", "reason"),
    [
        (job(J.RUNNING, work=(S.FAIL, "x")), None, ""),
        (job(J.PASS, work=(S.PASS, "")), Result.PASS, ""),
        (job(J.FAIL, work=(S.PASS, ""), later=(S.FAIL, "x")), Result.PASS, ""),
        (job(J.FAIL, work=(S.FAIL, "lost 4 pages")), Result.FAIL, "lost 4 pages"),
        (job(J.FAIL, boot=(S.FAIL, "panic")), Result.SKIP, "boot fail: panic"),
        (job(J.BLOCKED, "build ended as fail: error: x"), Result.SKIP, "build ended as fail: error: x"),
        (job(J.BLOCKED, work=(S.BLOCKED, "no HVM here")), Result.SKIP, "work blocked: no HVM here"),
        (job(J.PASS, work=(S.SKIPPED, "not asked for")), Result.SKIP, "work skipped: not asked for"),
        (job(J.PASS, other=(S.PASS, "")), Result.SKIP, "the job has no step work"),
        (job(J.BROKEN, "disk", work=(S.BROKEN, "disk full")), Result.BROKEN, "disk full"),
        (job(J.BROKEN, "no host came up", boot=(S.BROKEN, "off")), Result.BROKEN, "no host came up"),
        (job(J.BROKEN, "killed", work=(S.RUNNING, "")), Result.BROKEN, "killed"),
        (job(J.STARVED, "would take 9 h"), Result.BROKEN, "would take 9 h"),
        (job(J.ABORTED, "by ann", work=(S.ABORTED, "")), Result.ABORTED, "by ann"),
        # whatever broke afterwards, the step had told
        (job(J.BROKEN, "logs", work=(S.FAIL, "lost"), logs=(S.BROKEN, "no logs")), Result.FAIL, "lost"),
    ],
)
def test_what_a_job_tells_of_a_step(ended: Job, result: Result | None, reason: str) -> None:
    assert result_of(ended, "work") == (None if result is None else (result, reason))


def a_build(flight: int, name: str, commit: str, *, tree: str = "xen", **more: str) -> Job:
    given = {"tree": tree, "revision": "staging", **more}
    runvars = [Runvar(name=key, value=value) for key, value in given.items()]
    runvars.append(Runvar(name="build_commit", value=commit, synth=True))
    return Job(flight=flight, name=name, recipe=RECIPE, status=J.PASS, runvars=tuple(runvars))


def a_test(flight: int, **runvars: str) -> Job:
    given = tuple(Runvar(name=name, value=value) for name, value in runvars.items())
    output = Runvar(name="build_key", value="synth", synth=True)
    return Job(flight=flight, name="test", recipe="test-xl", status=J.FAIL, runvars=(*given, output))


def test_a_template_has_the_job_and_its_builds_at_the_commits_they_were() -> None:
    bad, good = a_test(9, xenbuildjob="build", guest_kind="pv"), a_test(4, xenbuildjob="build", guest_kind="pv")
    template = make_template(bad, {"": a_build(9, "build", "b" * 40)}, good, {"": a_build(4, "build", "a" * 40)})
    assert template.specs == (
        JobSpec(name="build", recipe=RECIPE, runvars={"tree": "xen", "revision": "b" * 40}),
        JobSpec(name="test", recipe="test-xl", runvars={"xenbuildjob": "build", "guest_kind": "pv"}),
    )
    assert (template.basis, template.failure) == (("a" * 40,), ("b" * 40,))
    assert [tree.name for tree in template.trees] == ["xen"]


def test_builds_of_other_flights_come_along_under_names_of_their_own() -> None:
    bad = a_test(9, src_host_xenbuildjob="5.build", dst_host_xenbuildjob="build")
    builds = {"src_host_": a_build(5, "build", "o" * 40), "dst_host_": a_build(9, "build", "b" * 40)}
    before = {"src_host_": a_build(5, "build", "o" * 40), "dst_host_": a_build(4, "build", "a" * 40)}
    template = make_template(bad, builds, a_test(4), before)
    assert [spec.name for spec in template.specs] == ["build", "build.9", "test"]
    assert template.specs[2].runvars["src_host_xenbuildjob"] == "build"
    assert template.specs[2].runvars["dst_host_xenbuildjob"] == "build.9"
    assert [tree.builds for tree in template.trees] == [("build.9",)]  # the other one stays where it is


def test_two_revisions_of_one_tree_that_move_apart_are_two_trees() -> None:
    builds = {"src_host_": a_build(9, "old", "d" * 40), "dst_host_": a_build(9, "new", "b" * 40)}
    before = {"src_host_": a_build(4, "old", "c" * 40), "dst_host_": a_build(4, "new", "a" * 40)}
    template = make_template(a_test(9), builds, a_test(4), before)
    assert [(tree.name, tree.repository) for tree in template.trees] == [("xen/old", "xen"), ("xen/new", "xen")]
    assert template.basis == ("c" * 40, "a" * 40)


def test_builds_that_move_together_are_one_tree() -> None:
    builds = {"": a_build(9, "plain", "b" * 40), "l1_": a_build(9, "xsm", "b" * 40, xen_config="xsm")}
    before = {"": a_build(4, "plain", "a" * 40), "l1_": a_build(4, "xsm", "a" * 40, xen_config="xsm")}
    template = make_template(a_test(9), builds, a_test(4), before)
    assert [tree.builds for tree in template.trees] == [("plain", "xsm")]


def test_a_build_that_fails_is_bisected_itself() -> None:
    bad = replace(a_build(9, "build", ""), status=J.FAIL, runvars=(Runvar(name="revision", value="b" * 40),))
    good = a_build(4, "build", "a" * 40)
    template = make_template(bad, {"": bad}, good, {"": good})
    assert [spec.name for spec in template.specs] == ["build"]
    assert template.failure == ("b" * 40,)


@pytest.mark.parametrize(
    ("builds", "before", "said"),
    [
        ({}, {}, "its Xen is packaged"),
        ({"": a_build(9, "build", "b")}, {}, "same builds"),
        ({"": a_build(9, "build", "b")}, {"": a_build(4, "build", "a", tree="qemu")}, "different trees"),
        ({"": a_build(9, "build", "b")}, {"": a_build(4, "build", "b")}, "same revisions"),
    ],
)
def test_what_cannot_be_compared_is_refused(builds: dict[str, Job], before: dict[str, Job], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_template(a_test(9), builds, a_test(4), before)


def a_bisection() -> Bisection:
    bad, good = a_test(9, xenbuildjob="build", guest_kind="pv"), a_test(4, xenbuildjob="build")
    template = make_template(bad, {"": a_build(9, "build", "c")}, good, {"": a_build(4, "build", "a")})
    history = history_of("xen", "a", "c", [Commit(id="b", parents=("a",)), Commit(id="c", parents=("b",))])
    return Bisection(
        id=1, branch="x", job="test", testid="work", state=BisectionState.RUNNING, template=template.specs,
        trees=template.trees, histories=(history,),
    )  # fmt: skip


def test_a_probe_is_the_template_with_other_revisions_up_to_the_step() -> None:
    build, test = probe_specs(a_bisection(), ("b",))
    assert build.runvars["revision"] == "b"
    assert test.runvars == {**a_bisection().template[1].runvars, "stop_after": "work"}


def test_only_runs_of_the_same_test_are_compared() -> None:
    whole = a_bisection()
    same = a_test(7, xenbuildjob="4.build", guest_kind="pv", host_hostflags="hvm", stop_after="work")
    assert compared(same, {"": a_build(4, "build", "b")}, whole) == ("b",)
    for other, build in [
        (a_test(7, xenbuildjob="build", guest_kind="pvh"), a_build(7, "build", "b")),
        (a_test(7, xenbuildjob="build", guest_kind="pv", fault="xen-crash"), a_build(7, "build", "b")),
        (same, a_build(7, "build", "b", xen_config="debug")),
        (replace(same, recipe="test-xsm"), a_build(7, "build", "b")),
    ]:
        assert compared(other, {"": build}, whole) is None
    assert compared(same, {}, whole) is None


def test_hosts_are_those_of_the_failure_or_like_them() -> None:
    specs = [JobSpec(name="build", recipe=RECIPE), JobSpec(name="test", recipe="t", runvars={"a_hostflags": "hvm"})]
    flags = {"h1": frozenset({"hvm", "equiv-x", "equiv-y"}), "h2": frozenset({"hvm"})}
    used = {"a": "h1", "b": "h2"}
    assert on_hosts(specs, "test", used, flags, Hosts.ANY)[1].runvars == {"a_hostflags": "hvm"}
    assert on_hosts(specs, "test", used, flags, Hosts.SAME)[1].runvars == {
        "a_hostflags": '(hvm) and name == "h1"',
        "b_hostflags": 'name == "h2"',
    }
    alike = on_hosts(specs, "test", used, flags, Hosts.EQUIVALENT)
    assert alike[1].runvars == {"a_hostflags": "(hvm) and equiv_x and equiv_y", "b_hostflags": 'name == "h2"'}
    assert alike[0] == specs[0]


def test_a_revision_that_breaks_the_lab_again_and_again_is_skipped() -> None:
    def runs(*results: Result) -> list[ProbeRun]:
        return [
            ProbeRun(number=number, flight=number, node=("b",), purpose="search", result=result)
            for number, result in enumerate(results)
        ]

    assert observations(runs(Result.BROKEN, Result.ABORTED)) == []
    assert [one.outcome for one in observations(runs(*[Result.BROKEN] * 4))] == [Outcome.SKIP]
    assert [one.outcome for one in observations(runs(Result.BROKEN, Result.FAIL))] == [Outcome.FAIL]
    revert = [replace(one, purpose="revert") for one in runs(Result.PASS)]
    assert observations(revert) == []


def test_histories_are_kept_whole() -> None:
    histories = (*a_bisection().histories, history_of("qemu", "a", "z", []))
    assert read_histories(histories_json(histories)) == histories
