"""Running a job: what each way a step can end means, and what is kept of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from factories import (
    PAIR,
    PASS,
    PASSES,
    FakeHost,
    a_recipe,
    a_step,
    boot,
    doing,
    flight_of,
    host_of,
    job_of,
    run_all,
    spec,
    start,
    submit,
)
from sqlalchemy import func, select

from lab.context import Lab
from lab.db.tables import DurationRow
from lab.errors import Blocked, Evidence, HostDiedError, InfraError, LabBug, StepFailure
from lab.flights.model import Attempt
from lab.flights.recipe import BROKEN, run
from lab.flights.status import JobStatus, StepStatus
from lab.flights.steps import SkipStep, StepContext
from lab.hosts.model import HostState
from lab.services.run_job import EVIDENCE_LIMIT, run_job

S = StepStatus


def one(lab: Lab, recipe: str, **runvars: str) -> tuple[JobStatus | None, Attempt]:
    """Run one job of this recipe; how it ended."""
    number = submit(lab, spec("job", recipe, **runvars))
    (status,) = run_all(lab)
    last = job_of(lab, number, "job").last
    assert last is not None
    assert last.status is status
    assert last.finished is not None
    return status, last


def statuses(attempt: Attempt) -> list[tuple[str, StepStatus]]:
    return [(step.testid, step.status) for step in attempt.steps]


def fake(lab: Lab, name: str = "h1") -> FakeHost:
    return lab.machines[name]  # type: ignore[index,no-any-return]


def test_a_job_that_passes_has_its_steps_times_logs_and_console_offsets(lab: Lab) -> None:
    fake(lab).console.says(b"before\n")

    def speaks(ctx: StepContext) -> None:
        fake(lab).console.says(b"during\n")
        ctx.log("hello\nworld")
        ctx.save("dmesg.txt", b"\xff")
        assert (ctx.job, ctx.role, ctx.roles, dict(ctx.args)) == ("1.job", "host", ("host",), {"mode": "x"})
        ctx.runvars.set("out", "put")

    status, attempt = one(lab, a_recipe(boot, run(a_step(speaks), "speak/x", mode="x")), fault="in")
    assert status is JobStatus.PASS
    assert statuses(attempt) == [("boot", S.PASS), ("speak/x", S.PASS)]
    step = attempt.steps[1]
    assert step.console == {"h1": (7, 14)}
    assert step.finished is not None
    assert attempt.started <= step.started <= step.finished <= attempt.finished  # type: ignore[operator]
    assert step.log == "1/job/1/02.speak-x.log"
    assert re.fullmatch(r"\[[\d:.]+\] hello\n\[[\d:.]+\] world\n", (lab.logs / step.log).read_text())
    assert (lab.logs / "1/job/1/02.speak-x.dmesg.txt").read_bytes() == b"\xff"
    values = job_of(lab, 1, "job").values
    assert values == {"fault": "in", "out": "put", "host": "h1"}
    assert fake(lab).closed == 1


@pytest.mark.parametrize(("runvars", "toolstack"), [({}, "xl"), ({"toolstack": "libvirt"}, "libvirt")])
def test_hosts_are_opened_with_the_jobs_toolstack(lab: Lab, runvars: dict[str, str], toolstack: str) -> None:
    status, _ = one(lab, doing(lambda _: None), **runvars)
    assert status is JobStatus.PASS
    assert fake(lab).toolstack_asked == toolstack


OUTCOMES: list[tuple[BaseException, JobStatus, StepStatus, str]] = [
    (StepFailure("Xen did wrong"), JobStatus.FAIL, S.FAIL, "work: Xen did wrong"),
    (InfraError("no disk"), JobStatus.BROKEN, S.BROKEN, "work: no disk"),
    (HostDiedError("gone"), JobStatus.BROKEN, S.BROKEN, "work: gone"),
    (LabBug("ours"), JobStatus.BROKEN, S.BROKEN, "work: ours"),
    (TypeError("a mistake"), JobStatus.BROKEN, S.BROKEN, "work: TypeError: a mistake"),
    (Blocked("no build"), JobStatus.BLOCKED, S.BLOCKED, "work: no build"),
    (SkipStep("nothing to do"), JobStatus.PASS, S.SKIPPED, ""),
]


@pytest.mark.parametrize(
    ("error", "job", "step", "reason"), OUTCOMES, ids=[type(outcome[0]).__name__ for outcome in OUTCOMES]
)
def test_each_way_to_end_has_its_meaning(
    new_lab: Callable[..., Lab], error: BaseException, job: JobStatus, step: StepStatus, reason: str
) -> None:
    lab = new_lab(retries=0)

    def ends(ctx: StepContext) -> None:
        raise error

    status, attempt = one(lab, doing(ends))
    assert (status, attempt.steps[1].status, attempt.reason) == (job, step, reason)
    assert flight_of(lab, 1).status is job


def test_the_recipe_line_says_what_a_failure_of_the_product_means(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(retries=0)

    def fails(ctx: StepContext) -> None:
        raise StepFailure("no")

    status, _attempt = one(lab, a_recipe(boot, run(a_step(fails), "x", iffail=BROKEN)))
    assert status is JobStatus.BROKEN
    status, _attempt = one(lab, a_recipe(boot, run(a_step(fails), "x", iffail=S.BLOCKED)))
    assert status is JobStatus.BLOCKED


def test_after_a_failure_only_lines_that_always_run_do(lab: Lab) -> None:
    def fails(ctx: StepContext) -> None:
        raise StepFailure("first")

    def breaks(ctx: StepContext) -> None:
        raise OSError("and then the logs")

    recipe = a_recipe(
        boot,
        run(a_step(fails), "fail"),
        run(PASS, "not-run"),
        run(a_step(breaks), "logs", always=True),
        run(PASS, "more-logs", always=True),
    )
    status, attempt = one(lab, recipe)
    assert status is JobStatus.FAIL, "the first step that did not pass decides"
    assert statuses(attempt) == [("boot", S.PASS), ("fail", S.FAIL), ("logs", S.BROKEN), ("more-logs", S.PASS)]
    assert attempt.reason == "fail: first"


def test_evidence_is_kept_whole_enough_and_storable(lab: Lab) -> None:
    def fails(ctx: StepContext) -> None:
        fake(lab).console.says(b"(XEN) last words \xff\0\n")
        raise StepFailure(
            "xl said\nno \0 \udcff",
            evidence=Evidence(host="h1", command="xl create", exit_status=0, output="\0é😀\udc80" + "x" * 50_000),
        )

    _status, attempt = one(lab, doing(fails))
    step = attempt.steps[1]
    assert "\n" not in step.reason
    assert step.reason.startswith("xl said no")
    assert (step.evidence["host"], step.evidence["command"], step.evidence["exit status"]) == ("h1", "xl create", "0")
    assert step.evidence["output"] == "x" * EVIDENCE_LIMIT
    assert "(XEN) last words" in step.evidence["console of h1"]
    assert "\0" not in str(step.evidence)
    log = (lab.logs / step.log).read_text()
    assert "é😀" in log, "the log has the whole"


def test_the_unexpected_is_kept_with_its_traceback(new_lab: Callable[..., Lab]) -> None:
    def mistaken(ctx: StepContext) -> None:
        raise TypeError("ours")

    _status, attempt = one(new_lab(retries=0), doing(mistaken))
    assert "in mistaken" in attempt.steps[1].evidence["traceback"]


def test_an_output_no_database_could_store_is_stored_readably(lab: Lab) -> None:
    def writes(ctx: StepContext) -> None:
        ctx.runvars.set("odd", "a\0b\udcffc")

    status, _attempt = one(lab, doing(writes))
    assert status is JobStatus.PASS
    assert job_of(lab, 1, "job").values["odd"] == "a\ufffdb?c"


def test_a_skip_reason_of_any_text_is_stored(lab: Lab) -> None:
    def skips(ctx: StepContext) -> None:
        raise SkipStep("a\0b\nc")

    status, attempt = one(lab, doing(skips))
    assert status is JobStatus.PASS
    assert attempt.steps[1].reason == "ab c"


def test_a_set_up_step_that_reads_what_it_did_not_declare_is_broken(new_lab: Callable[..., Lab]) -> None:
    def reads(ctx: StepContext) -> None:
        ctx.runvars.get("dom0_mem")
        ctx.runvars.get("fault")

    status, attempt = one(new_lab(retries=0), a_recipe(run(a_step(reads), "setup", setup=True)), fault="x")
    assert status is JobStatus.BROKEN
    assert "declared inputs" in attempt.reason


def test_a_step_that_is_too_slow_fails_in_time(lab: Lab) -> None:
    def waits(ctx: StepContext) -> None:
        ctx.wait(60)

    status, attempt = one(lab, doing(waits, timeout_s=0.3))
    assert status is JobStatus.FAIL
    assert "was not done after" in attempt.reason


def test_a_panic_on_the_console_ends_the_wait_with_the_evidence(lab: Lab) -> None:
    def waits(ctx: StepContext) -> None:
        fake(lab).console.says(b"(XEN) Panic on CPU 0:\r\n(XEN) oh no\r\n")
        ctx.wait(60)

    status, attempt = one(lab, doing(waits))
    assert status is JobStatus.FAIL
    assert "h1: Xen panic: oh no" in attempt.reason
    assert "oh no" in attempt.steps[1].evidence["console"]


def test_what_xsm_denied_during_a_failed_step_is_among_its_evidence(lab: Lab) -> None:
    line = b"avc:  denied  { create } for current=d0 scontext=u:r:dom0_t tcontext=u:r:x_t tclass=domain"

    def fails(ctx: StepContext) -> None:
        fake(lab).console.says(b"(XEN) " + line + b"\r\n")
        raise StepFailure("xl create failed")

    _, attempt = one(lab, doing(fails))
    assert attempt.steps[1].evidence["denied by XSM on h1"] == line.decode()


def test_a_panic_blames_xen_even_when_it_takes_the_machine_down(lab: Lab) -> None:
    def waits(ctx: StepContext) -> None:
        fake(lab, ctx.host().name).console.says(b"(XEN) Panic on CPU 0:\r\n")
        fake(lab, ctx.host().name).power.on = False
        ctx.wait(60)

    def is_cut_off(ctx: StepContext) -> None:
        fake(lab, ctx.host().name).console.says(b"(XEN) FATAL TRAP: vec 14\r\n")
        fake(lab, ctx.host().name).power.on = False
        raise HostDiedError("the shell does not answer any more")

    for function in (waits, is_cut_off):
        status, attempt = one(lab, doing(function))
        assert status is JobStatus.FAIL
        assert "Xen panic" in attempt.reason


def test_an_old_panic_on_the_console_is_not_this_jobs(lab: Lab) -> None:
    fake(lab).console.says(b"(XEN) Panic on CPU 0:\r\n")

    def looks(ctx: StepContext) -> None:
        ctx.wait(0.05)

    assert one(lab, doing(looks))[0] is JobStatus.PASS


def test_a_machine_that_goes_off_breaks_the_job_whatever_the_step_says(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(retries=0)

    def waits(ctx: StepContext) -> None:
        fake(lab).power.on = False
        ctx.wait(60)

    def fails(ctx: StepContext) -> None:
        lab.machines.open(ctx.host().name).power.set(False)
        raise StepFailure("the command failed")

    status, attempt = one(lab, doing(waits))
    assert status is JobStatus.BROKEN
    assert "h1: the machine is off" in attempt.reason
    status, attempt = one(lab, doing(fails))
    assert status is JobStatus.BROKEN
    assert "the machine went off during work: the command failed" in attempt.reason


def test_a_failure_keeps_its_meaning_when_the_power_cannot_be_asked(lab: Lab) -> None:
    def fails(ctx: StepContext) -> None:
        fake(lab).power.silent = InfraError("the BMC is away")
        raise StepFailure("Xen did wrong")

    status, attempt = one(lab, doing(fails))
    assert (status, attempt.reason) == (JobStatus.FAIL, "work: Xen did wrong")


def test_a_connection_that_does_not_close_costs_nothing(lab: Lab) -> None:
    fake(lab).close_error = OSError("broken pipe")
    assert one(lab, PASSES)[0] is JobStatus.PASS


def test_lines_on_several_hosts_each_have_their_own(lab: Lab) -> None:
    status, attempt = one(lab, PAIR)
    assert status is JobStatus.PASS
    assert [(step.testid, step.host) for step in attempt.steps] == [("boot/a", "h1"), ("boot/b", "h2"), ("work", "h1")]
    assert {name: job_of(lab, 1, "job").values[name] for name in "ab"} == {"a": "h1", "b": "h2"}


def test_an_attempt_runs_once_and_only_for_its_token(lab: Lab) -> None:
    submit(lab, spec("a"))
    ((attempt, token),) = start(lab)
    assert run_job(lab, attempt, "another") is None
    assert run_job(lab, 4711, token) is None
    assert run_job(lab, attempt, token) is JobStatus.PASS
    assert run_job(lab, attempt, token) is None


@pytest.mark.parametrize("short", [True, False])
def test_a_job_that_is_cut_short_hands_its_host_on_to_nobody_and_tells_no_length(lab: Lab, short: bool) -> None:
    recipe = a_recipe(boot, run(PASS, "work"), run(PASS, "more"), run(PASS, "logs", always=True))
    runvars = {"all_hostflags": 'name == "h1"', **({"stop_after": "work"} if short else {})}
    number = submit(lab, spec("first", recipe, **runvars), spec("second", recipe, all_hostflags='name == "h1"'))
    assert run_all(lab) == [JobStatus.PASS]
    last = job_of(lab, number, "first").last
    assert last is not None
    assert [step.testid for step in last.steps] == ["boot", "work", *(() if short else ("more",)), "logs"]
    assert host_of(lab, "h1").state is (HostState.CLEANING if short else HostState.FREE)
    with lab.reads() as session:
        told = session.scalar(select(func.count()).select_from(DurationRow)) or 0
    assert (told > 0) == (not short)
