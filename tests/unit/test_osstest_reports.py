"""Our verdicts against those that OSSTest published; the file holds facts from its mails to xen-devel, 2021 to 2024."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.errors import ConfigError
from lab.flights import regression
from lab.flights.osstest_check import compare_all, summary
from lab.flights.osstest_report import Reports
from lab.flights.regression import judge
from lab.flights.verdict import Kind
from lab.osstest_file import read_reports

FILE = Path(__file__).parent.parent / "golden" / "osstest-reports.jsonl"

A_FLIGHT: dict[str, Any] = {
    "flight": 10, "branch": "xen", "date": "2024-01-01T00:00:00Z", "versions_this": {"xen": "old"},
    "versions_baseline": {"xen": "older"}, "jobs": {"test-a": "pass"}, "failures": [],
}  # fmt: skip


def failure(job: str, testid: str, stepno: int | None, kind: str = "regression", **more: Any) -> dict[str, Any]:
    section = "blocking" if kind in ("regression", "job_status") else "nonblocking"
    return {"section": section, "job": job, "testid": testid, "stepno": stepno, "status": "fail", "kind": kind, **more}


def later(**more: Any) -> dict[str, Any]:
    return {
        **A_FLIGHT, "flight": 20, "date": "2024-01-05T00:00:00Z", "versions_this": {"xen": "new"},
        "versions_baseline": {"xen": "old"}, "baseline_flight": 10, **more,
    }  # fmt: skip


@pytest.fixture
def a_file(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: object) -> Path:
        path = tmp_path / "reports.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


def test_every_case_of_the_real_reports_agrees() -> None:
    reports = read_reports(FILE)
    result = summary(reports, compare_all(reports))
    assert (result["cases"], result["agree"], result["undecidable"]) == (52, 52, 0)
    assert result["by_class"] == {
        "heisenbug": {"cases": 4, "agree": 4}, "like": {"cases": 25, "agree": 25},
        "regression": {"cases": 16, "agree": 16}, "starved_in": {"cases": 7, "agree": 7},
    }  # fmt: skip
    assert (result["disagreements"], result["others"]["contradicted"]) == ([], [])
    assert result["same_flight_named"] == 52


def test_the_headlines_are_those_that_were_published() -> None:
    """Of every report whose baseline is in the file, or which has nothing to compare."""
    reports = read_reports(FILE)
    checked = 0
    for report in reports.flights.values():
        if report.baseline_flight in reports.flights or not report.failures:
            verdict = judge(reports.run(report), reports.past(report), refer_to=reports.refer_to(report))
            assert verdict.headline == report.headline, report.flight
            checked += 1
    assert checked >= 25


def test_a_judge_with_another_rule_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agreement is no accident: turn any one rule around, and it falls."""
    reports = read_reports(FILE)
    real = regression._compared

    def agree() -> int:
        return int(summary(reports, compare_all(reports))["agree"])

    def changed(which: Kind, to: dict[str, Any]) -> Callable[..., Any]:
        def compared(*args: Any) -> Any:
            told = real(*args)
            return replace(told, **to) if told is not None and told.kind is which else told

        return compared

    for kind, to in (
        (Kind.REGRESSION, {"kind": Kind.LIKE}),
        (Kind.LIKE, {"kind": Kind.REGRESSION}),
        (Kind.STARVED_IN, {"kind": Kind.BLOCKED_IN}),
        (Kind.REGRESSION, {"priority": 600}),
    ):
        monkeypatch.setattr(regression, "_compared", changed(kind, to))
        assert agree() < 52, (kind, to)
    monkeypatch.setattr(regression, "_compared", real)
    assert agree() == 52


def test_the_published_word_is_not_what_we_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a report is not read from it: with its classes blotted out, ours stay the same."""
    reports = read_reports(FILE)
    for report in reports.flights.values():
        if report.retests or any(one.seen_in for one in report.failures):
            continue
        blotted = replace(
            report,
            failures=tuple(
                replace(one, kind=Kind.UNFINISHED, section="blocking", note="", ref_flight=None)
                if one.kind is not Kind.HEISENBUG
                else one
                for one in report.failures
            ),
        )
        others = [one for one in reports.flights.values() if one.flight != report.flight]
        again = Reports([*others, blotted])
        assert judge(again.run(blotted), again.past(blotted)) == judge(reports.run(report), reports.past(report))


def compared_of(path: Path) -> dict[str, tuple[str, bool, bool]]:
    """'job testid' -> (our kind, case that is decided, agrees)"""
    return {
        " ".join(one.published.test): (
            one.ours.kind.value if one.ours else "nothing", one.case and one.decided, one.agrees
        )
        for one in compare_all(read_reports(path))
    }  # fmt: skip


def test_a_step_before_the_failure_of_a_job_has_passed_and_one_after_it_did_not_run(
    a_file: Callable[..., Path],
) -> None:
    path = a_file(
        {**A_FLIGHT, "jobs": {"test-a": "fail"}, "failures": [failure("test-a", "middle", 10, "like", ref_flight=1)]},
        later(
            jobs={"test-a": "fail"},
            failures=[
                failure("test-a", "early", 5, ref_flight=10),
                failure("test-a", "late", 15, "blocked_in", ref_flight=10),
                failure("test-a", "beside", 10, "blocked_in", ref_flight=10),
            ],
        ),
    )
    told = compared_of(path)
    assert told["test-a early"] == ("regression", True, True)
    assert told["test-a late"] == ("blocked_in", True, True)
    # the same number for another test: the recipes differ, and the file does not decide
    assert told["test-a beside"][1] is False


def test_parts_of_a_step_and_checks_of_support_do_not_end_a_job(a_file: Callable[..., Path]) -> None:
    path = a_file(
        {**A_FLIGHT, "jobs": {"test-xtf": "fail"}, "failures": [failure("test-xtf", "xtf/one", 10, "never_pass")]},
        later(jobs={"test-xtf": "fail"}, failures=[failure("test-xtf", "xtf/two", 15, ref_flight=10)]),
    )
    assert compared_of(path)["test-xtf xtf/two"] == ("regression", True, True)


def test_a_build_that_failed_only_in_the_excusing_flight_blocks(a_file: Callable[..., Path]) -> None:
    intermittent = {"section": "intermittent", "kind": "heisenbug_pass_in"}
    path = a_file(
        {**A_FLIGHT, "jobs": {"build-a": "pass", "test-a": "pass"}},
        later(
            jobs={"build-a": "pass", "test-a": "fail"},
            failures=[
                failure("build-a", "xen-build", 6, ref_flight=10, seen_in=19),
                {**failure("test-a", "boot", 8, ref_flight=19), **intermittent},
            ],
        ),
    )
    told = compared_of(path)
    assert told["build-a xen-build"] == ("regression", True, True)
    assert told["test-a boot"] == ("heisenbug", False, True)


def test_a_job_that_passed_and_one_that_was_starved(a_file: Callable[..., Path]) -> None:
    broken = {"status": "broken", "section": "nonblocking"}
    path = a_file(
        {**A_FLIGHT, "jobs": {"test-examine": "pass", "test-arm": "starved"}},
        later(
            jobs={"test-examine": "pass", "test-arm": "broken"},
            failures=[
                failure("test-examine", "examine-serial/xen", 14, ref_flight=10),
                {**failure("test-arm", "host-install", 5, "starved_in", ref_flight=10), **broken},
                {**failure("test-arm", "<job status>", None, "job_status"), "status": "broken"},
            ],
        ),
    )
    told = compared_of(path)
    assert told["test-examine examine-serial/xen"] == ("regression", True, True)
    assert told["test-arm host-install"] == ("starved_in", True, True)
    assert told["test-arm <job status>"] == ("job_status", False, True)


def test_what_the_file_does_not_tell_is_counted_as_undecidable(a_file: Callable[..., Path]) -> None:
    path = a_file(A_FLIGHT, later(jobs={"test-b": "fail"}, failures=[failure("test-b", "boot", 8, ref_flight=10)]))
    reports = read_reports(path)
    result = summary(reports, compare_all(reports))
    assert (result["cases"], result["agree"], result["undecidable"], result["disagreements"]) == (1, 0, 1, [])


def test_a_later_report_is_not_looked_at(a_file: Callable[..., Path]) -> None:
    path = a_file(
        {**A_FLIGHT, "date": "2024-02-01T00:00:00Z", "jobs": {"test-a": "fail"},
         "failures": [failure("test-a", "boot", 8)]},
        {**A_FLIGHT, "flight": 11},
        later(jobs={"test-a": "fail"}, baseline_flight=11, failures=[failure("test-a", "boot", 8, ref_flight=11)]),
    )  # fmt: skip
    assert compared_of(path)["test-a boot"] == ("regression", True, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: the line: input should be"),
        ('{"flight": 3}', "line 2: branch: field required"),
        (json.dumps({**A_FLIGHT, "flight": "x"}), "line 2: flight"),
        (json.dumps({**A_FLIGHT, "flight": 11, "date": "yesterday"}), "line 2: date"),
        (json.dumps({**A_FLIGHT, "flight": 11, "date": "2024-01-01T00:00:00"}), "no time zone"),
        (json.dumps({**A_FLIGHT, "flight": 11, "branch": "a\nb"}), "line 2: branch"),
        (json.dumps({**A_FLIGHT, "flight": 11, "failures": [failure("a", "b", 1, "odd")]}), "failures.0.kind"),
        (json.dumps(A_FLIGHT), "two reports of flight 10"),
        ("[" * 100_000, "line 2: is"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(a_file: Callable[..., Path], line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_reports(a_file(A_FLIGHT, line))
    assert message in caught.value.message
    assert len(caught.value.message) < 1000


def test_files_that_hold_nothing_or_are_none(tmp_path: Path) -> None:
    for content, message in ((b"", "has no report"), (b"\xff\xfe", "is not UTF-8")):
        path = tmp_path / "reports.jsonl"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_reports(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_reports(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reports(tmp_path)


def test_the_command_says_by_its_exit_code_whether_we_agree(
    a_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner().invoke(main, ["verdict", "check", str(FILE), "--json"])
    assert run.exit_code == 0
    told = json.loads(run.stdout)
    assert {"cases", "agree", "by_class", "undecidable", "disagreements"} <= told.keys()
    path = a_file(
        {**A_FLIGHT, "jobs": {"test-a": "fail"}, "failures": [failure("test-a", "boot", 8, "like")]},
        later(jobs={"test-a": "fail"}, failures=[failure("test-a", "boot", 8, ref_flight=10)]),
    )
    run = CliRunner().invoke(main, ["verdict", "check", str(path)])
    assert run.exit_code == 1
    assert "published as regression" in run.stdout
    assert "like 10" in run.stdout
    bad = CliRunner().invoke(main, ["verdict", "check", str(a_file("{"))])
    assert bad.exit_code == 2
