"""Judging flights of a real database, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import a_recipe, a_step, boot, flight_of, job_of, run_all, spec, submit
from sqlalchemy import insert

from lab.cli import main
from lab.context import Lab
from lab.db import imports, judging
from lab.db.imports import ImportedJob, add_imported_flight
from lab.db.tables import FlightRevisionRow, GateRunRow
from lab.errors import ConfigError, NotFoundError, StepFailure
from lab.flights import builds
from lab.flights.judged_by import JudgedBy
from lab.flights.past_results import FAIL, PASS, StepRun
from lab.flights.recipe import run
from lab.flights.regression import TestPattern, Waiver
from lab.flights.status import Blessing
from lab.flights.verdict import Kind, Outcome
from lab.osstest_file import read_reports
from lab.services.import_reports import import_reports
from lab.services.judge import judge_flight

REPORTS = Path(__file__).parent.parent / "golden" / "osstest-reports.jsonl"
OLD, NEW = {"xen": "a" * 40}, {"xen": "b" * 40}


def add(
    lab: Lab, flight: int, results: Mapping[str, str], versions: Mapping[str, str], blessing: str = "real",
    branch: str = "xen-unstable",
) -> int:  # fmt: skip
    """A flight that has ended: 'JOB STEP' -> status."""
    jobs: dict[str, list[StepRun]] = {}
    for name, status in results.items():
        job, testid = name.split(" ", 1)
        steps = jobs.setdefault(job, [])
        if status not in ("starved", "blocked"):
            steps.append(StepRun(testid=testid, status=status, stepno=len(steps) + 1))
    listed = []
    for job, steps in jobs.items():
        mine = [status for name, status in results.items() if name.startswith(f"{job} ")]
        whole = next((one for one in ("broken", "fail", "blocked", "starved") if one in mine), "pass")
        recipe = builds.RECIPE if job.startswith("build-") else imports.RECIPE
        listed.append(ImportedJob(name=job, status=whole, steps=steps, recipe=recipe))
    with lab.sessions.begin() as session:
        add_imported_flight(
            session, flight, branch=branch, blessing=blessing, versions=versions, jobs=listed, note="",
            ended=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(flight),
        )  # fmt: skip
    return flight


def notes(lab: Lab, flight: int, **more: object) -> dict[str, str]:
    """'job testid' -> the note, with a ! if it blocks."""
    with lab.reads() as session:
        verdict = judge_flight(session, flight, this=NEW, that=OLD, **more)  # type: ignore[arg-type]
    return {
        f"{one.job} {one.testid}{f' in {one.seen_in}' if one.seen_in else ''}": f"{one.note}{'!' if one.blocks else ''}"
        for one in verdict.findings
    }


def test_a_flight_is_judged_against_the_baseline(lab: Lab) -> None:
    before = {"build-x b": "pass", "test-a s": "pass", "test-b s": "fail", "test-c s": "starved", "test-d boot": "fail"}
    add(lab, 1, {**before, "test-b s": "pass", "test-c s": "pass", "test-d s": "pass"}, {"xen": "c" * 40})
    add(lab, 2, before, OLD)
    # neither of these counts: another branch, another blessing, another revision
    add(lab, 3, {"test-a s": "fail"}, OLD, branch="libvirt")
    add(lab, 4, {"test-a s": "fail"}, OLD, blessing="play")
    add(lab, 5, {"test-a s": "fail"}, {"xen": "d" * 40})
    add(
        lab, 9,
        {"build-x b": "fail", "test-a s": "fail", "test-b s": "fail", "test-c s": "fail", "test-d s": "fail",
         "test-e s": "fail", "test-f s": "blocked"}, NEW,
    )  # fmt: skip
    assert notes(lab, 9) == {
        "build-x b": "REGR. vs. 2!", "test-a s": "REGR. vs. 2!", "test-b s": "like 2", "test-c s": "starved in 2",
        "test-d s": "blocked in 2", "test-e s": "never pass", "test-f <none executed>": "n/a",
    }  # fmt: skip
    waived = {Waiver("test-a", "s")}
    assert notes(lab, 9, waived=waived)["test-a s"] == "REGR. vs. 2"
    by = JudgedBy(allow=(TestPattern(job="build-*"),))
    assert notes(lab, 9, policy=by)["build-x b"] == "REGR. vs. 2"


def test_retests_excuse_and_their_own_failures_count(lab: Lab) -> None:
    add(lab, 1, {"test-a s": "pass", "test-b s": "pass"}, OLD)
    add(lab, 2, {"test-a s": "fail", "test-b s": "pass"}, NEW)
    assert notes(lab, 2) == {"test-a s": "REGR. vs. 1!"}
    add(lab, 3, {"test-a s": "pass", "test-b s": "fail"}, NEW, blessing="real-retest")
    assert notes(lab, 2) == {"test-a s": "pass in 3", "test-b s in 3": "pass in 2"}
    add(lab, 4, {"test-b s": "fail", "test-c s": "fail"}, NEW, blessing="play")
    assert "test-b s in 4" not in notes(lab, 2)
    assert notes(lab, 2, refer_to=[4])["test-c s in 4"] == "never pass"


def test_versions_of_several_trees_are_all_compared(lab: Lab) -> None:
    add(lab, 1, {"test-a s": "fail"}, {**OLD, "linux": "1" * 40})
    add(lab, 2, {"test-a s": "pass"}, {**OLD, "linux": "2" * 40})
    add(lab, 3, {"test-a s": "fail"}, {**NEW, "linux": "2" * 40})
    with lab.reads() as session:
        assert judging.flights_testing(session, "xen-unstable", OLD) == [2, 1]
        assert judging.flights_testing(session, "xen-unstable", {**OLD, "linux": "2" * 40}) == [2]
        assert judging.flights_testing(session, "xen-unstable", {}) == []
        verdict = judge_flight(session, 3, this=NEW, that={**OLD, "linux": "2" * 40})
    assert [one.note for one in verdict.blockers] == ["REGR. vs. 2"]


def test_an_empty_history_and_a_baseline_without_a_common_job_push_nothing(lab: Lab) -> None:
    add(lab, 1, {"test-a s": "fail", "test-b s": "pass"}, NEW)
    with lab.reads() as session:
        verdict = judge_flight(session, 1, this=NEW, that=OLD)
    # never passed, so it does not block; and there is nothing that a baseline would tell of it
    assert [one.kind for one in verdict.findings] == [Kind.NEVER_PASS]
    add(lab, 2, {"test-z s": "pass"}, OLD)
    with lab.reads() as session:
        verdict = judge_flight(session, 1, this=NEW, that=OLD)
    assert not verdict.pushable
    assert "share no job" in verdict.missing[0]
    with lab.reads() as session, pytest.raises(NotFoundError):
        judge_flight(session, 99, this=NEW, that=OLD)
    with lab.reads() as session, pytest.raises(ConfigError, match="no policy"):
        judge_flight(session, 1, this=NEW, that=OLD, policy="mine")


def test_evidence_counts_every_run_by_hosts(lab: Lab) -> None:
    for flight in range(1, 31):
        add(lab, flight, {"test-a s": "pass", "test-b s": "fail" if flight % 2 else "pass"}, OLD)
    add(lab, 40, {"test-a s": "fail", "test-b s": "fail"}, NEW)
    told = notes(lab, 40, policy="evidence")
    assert told["test-a s"].startswith("REGR. vs. 30 P(new)=0.9")
    assert told["test-a s"].endswith("!")
    assert told["test-b s"].startswith("failed before")
    # one pass of the same versions is not enough ...
    add(lab, 41, {"test-a s": "pass"}, NEW, blessing="real-retest")
    assert notes(lab, 40, policy="evidence")["test-a s"].startswith("perhaps REGR.")
    assert notes(lab, 40)["test-a s"] == "pass in 41"
    # ... but many are
    for flight in range(42, 50):
        add(lab, flight, {"test-a s": "pass"}, NEW, blessing="real-retest")
    assert notes(lab, 40, policy="evidence")["test-a s"].startswith("comes and goes")


def test_what_was_pushed_before_the_baseline_is_evidence_too(lab: Lab) -> None:
    for flight in range(1, 21):
        add(lab, flight, {"test-a s": "fail" if flight % 2 else "pass"}, {"xen": f"{flight:040}"})
    add(lab, 30, {"test-a s": "pass"}, OLD)
    add(lab, 40, {"test-a s": "fail"}, NEW)
    assert notes(lab, 40, policy="evidence")["test-a s"].endswith("!")
    with lab.sessions.begin() as session:
        now = lab.clock()
        session.execute(
            insert(GateRunRow),
            [
                {"branch": "xen-unstable", "started": now, "finished": now, "state": "done", "old": "", "new": "",
                 "flight": flight, "verdict": {}, "decision": "advance", "pushed": True, "reason": ""}
                for flight in range(1, 21)
            ],
        )  # fmt: skip
    assert notes(lab, 40, policy="evidence")["test-a s"].startswith("failed before")


def test_a_flight_of_the_lab_itself(lab: Lab) -> None:
    """Steps as our workers write them: the newest attempt counts."""
    fails = [True]

    def work(ctx: object) -> None:
        if fails:
            raise StepFailure("xl migrate failed")

    recipe = a_recipe(boot, run(a_step(work), "guest-localmigrate"))

    def fly(revision: Mapping[str, str]) -> int:
        number: int = submit(lab, spec("test-a", recipe), branch="xen-unstable", intended=Blessing.REAL)
        with lab.sessions.begin() as session:
            session.add_all(
                FlightRevisionRow(flight=number, tree=tree, revision=commit) for tree, commit in revision.items()
            )
        run_all(lab)
        return number

    fails.clear()
    good = fly(OLD)
    fails.append(True)
    bad = fly(NEW)
    assert (job_of(lab, good, "test-a").status.value, job_of(lab, bad, "test-a").status.value) == (PASS, FAIL)
    if flight_of(lab, bad).blessing is Blessing.REAL:
        assert notes(lab, bad) == {"test-a guest-localmigrate": f"REGR. vs. {good}!"}


def test_every_case_of_the_real_reports_is_judged_alike_in_the_database(lab: Lab) -> None:
    """What the file does not tell (that a test passed once, before it begins) makes some a 'never pass'."""
    reports = read_reports(REPORTS)
    with lab.sessions.begin() as session:
        added = import_reports(session, reports)
    assert len(added) == len(reports.flights) + len(reports.mentioned)
    with lab.sessions.begin() as session, pytest.raises(ConfigError, match="already"):
        import_reports(session, reports)
    cases = alike = 0
    with lab.reads() as session:
        for report in reports.flights.values():
            verdict = judge_flight(
                session, report.flight, this=report.this, that=report.that, refer_to=reports.refer_to(report)
            )
            found = {(one.job, one.testid, one.seen_in): one for one in verdict.findings}
            for one in report.failures:
                if one.ref_flight in reports.flights or one.seen_in in reports.flights:
                    ours = found[one.job, one.testid, one.seen_in]
                    cases += 1
                    alike += ours.kind is one.kind
                    assert ours.blocks == (one.section == "blocking"), one
                    assert ours.kind is one.kind or (
                        ours.kind is Kind.NEVER_PASS and one.kind in (Kind.LIKE, Kind.STARVED_IN)
                    )
    assert cases == 52
    assert alike >= 24


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_shows_a_verdict(lab: Lab, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    add(lab, 1, {"test-a s": "pass", "test-b s": "pass"}, OLD)
    add(lab, 2, {"test-a s": "fail", "test-b s": "pass"}, NEW)
    monkeypatch.setenv("LAB_DATABASE_URL", database_url)
    monkeypatch.setenv("LAB_HOME", str(lab.settings.home))

    def lab_(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["verdict", *words])
        return done.exit_code, done.output

    code, told = lab_("show", "2", "--baseline", "1")
    assert code == 1
    assert "REGR. vs. 1" in told
    assert "would let it through" in told
    code, told = lab_("show", "2", "--that", f"xen={'a' * 40}", "--json")
    assert (code, json.loads(told)["outcome"]) == (1, Outcome.REGRESSIONS.value)
    assert lab_("show", "1", "--baseline", "1")[0] == 0
    for words in (("show", "2"), ("show", "2", "--that", "xen"), ("show", "9", "--baseline", "1")):
        code, told = lab_(*words)
        assert code == 2, told
