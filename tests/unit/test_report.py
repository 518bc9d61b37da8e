"""Reports as people and their scripts know them from OSSTest."""

from __future__ import annotations

import email
import email.policy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.flights.report import Push, Report, TreeLog, in_a_word, subject
from lab.flights.report_mail import ADDRESS, mail_text, new_mail, report_mail
from lab.flights.report_text import MOST_LINES, failure_row, report_text
from lab.flights.report_views import report_view
from lab.flights.standing import PastFlight, standing
from lab.flights.subscriptions import Subscription, Wanted
from lab.flights.verdict import JOB_STATUS, Finding, Kind, Outcome
from lab.osstest_file import read_reports

GOLDEN = Path(__file__).parents[1] / "golden"
AT = datetime(2026, 4, 27, 9, 43, 29, tzinfo=UTC)
OLD, NEW = "1" * 40, "2" * 40


def finding(job: str, testid: str, kind: Kind, note: str, **more: object) -> Finding:
    return Finding(
        **{"job": job, "testid": testid, "stepno": 18, "status": "fail", "kind": kind, "note": note,
           "blocks": kind is Kind.REGRESSION, **more}
    )  # type: ignore[arg-type]  # fmt: skip


def a_report() -> Report:
    past = [
        PastFlight(flight=number, started=AT - timedelta(days=70 - number), revisions={"xen": revision})
        for number, revision in ((60, OLD), (62, "3" * 40), (64, NEW))
    ]
    own = PastFlight(flight=65, started=AT - timedelta(hours=5), revisions={"xen": NEW})
    return Report(
        flight=65, branch="xen-unstable", intended="real", blessing="real", outcome=Outcome.REGRESSIONS, at=AT,
        jobs=(("build-amd64", "pass"), ("test-amd64-amd64-xl", "fail"), ("test-arm64-arm64-xl", "starved"),
              ("test-amd64-amd64-libvirt", "pass")),
        failures=(
            finding("test-amd64-amd64-xl", "guest-localmigrate", Kind.REGRESSION, "REGR. vs. 60"),
            finding("test-amd64-amd64-libvirt", "guest-start", Kind.HEISENBUG, "pass in 65", seen_in=64),
            finding("test-amd64-amd64-xl-rtds", "guest-start/debian.repeat", Kind.ALLOWABLE, "REGR. vs. 60"),
            finding("test-amd64-amd64-xl-win7", "guest-stop", Kind.LIKE, "like 60"),
            finding("test-amd64-amd64-libvirt", "migrate-support-check", Kind.NEVER_PASS, "never pass"),
            finding("test-arm64-arm64-xl", "hosts-allocate", Kind.NA, "n/a", status="starved", stepno=3),
        ),
        versions_this={"xen": NEW}, versions_that={"xen": OLD},
        standing=standing(own, past, baseline={"xen": OLD}, now=AT),
        people=("Ann <ann@example.org>", "Bob Böb <bob@example.org>"),
        logs=(TreeLog(tree="xen", lines=(f"commit {NEW}", "Author: Ann <ann@example.org>", "", "    x86: do it"),
                      length=4),),
        push=Push(pushed=False), url="https://lab.example.org",
    )  # fmt: skip


def test_the_mail_is_as_it_was_agreed() -> None:
    """After a wanted change: read the difference, then write tests/golden/report.eml anew with what the test shows."""
    text = mail_text(report_mail(a_report(), sender="Lab <lab@example.org>", to="xen-devel@example.org"))
    assert text == (GOLDEN / "report.eml").read_text()


def test_the_mail_can_be_read_by_scripts() -> None:
    text = mail_text(report_mail(a_report(), sender="lab@example.org", to="xen-devel@example.org"))
    mail = email.message_from_bytes(text.encode(), policy=email.policy.default)
    assert mail["Subject"] == "[xen-unstable test] 65: regressions - trouble: fail/pass/starved"
    assert mail["X-Osstest-Failures"].split() == [
        "xen-unstable:test-amd64-amd64-xl:guest-localmigrate:fail:regression",
        "xen-unstable:test-amd64-amd64-libvirt:guest-start:fail:heisenbug",
        "xen-unstable:test-amd64-amd64-xl-rtds:guest-start/debian.repeat:fail:allowable",
        "xen-unstable:test-amd64-amd64-xl-win7:guest-stop:fail:nonblocking",
        "xen-unstable:test-amd64-amd64-libvirt:migrate-support-check:fail:nonblocking",
        "xen-unstable:test-arm64-arm64-xl:hosts-allocate:starved:nonblocking",
    ]
    assert mail["X-Osstest-Versions-This"].split() == [f"xen={NEW}"]
    assert mail["X-Osstest-Versions-That"].split() == [f"xen={OLD}"]
    assert mail.get_content_type() == "text/plain"
    body = mail.get_content()
    assert "Failing since             62  2026-04-19 09:43:29 Z    8 days    3 attempts" in body
    assert "Testing same since        64  2026-04-21 09:43:29 Z    6 days    2 attempts" in body
    assert "Last test of basis        60  2026-04-17 09:43:29 Z   10 days" in body
    assert "Bob Böb" in body


@pytest.mark.parametrize(
    ("outcome", "jobs", "pushed", "word"),
    [
        (Outcome.PERFECT, ("pass", "pass"), True, "all pass - PUSHED"),
        (Outcome.TOLERABLE, ("pass", "fail"), True, "tolerable FAIL - PUSHED"),
        (Outcome.TOLERABLE, ("pass", "starved"), True, "tolerable trouble: pass/starved - PUSHED"),
        (Outcome.REGRESSIONS, ("pass", "fail"), False, "regressions - FAIL"),
        (Outcome.REGRESSIONS, ("blocked", "fail"), False, "regressions - trouble: blocked/fail"),
        (Outcome.REGRESSIONS, ("blocked", "fail", "pass"), False, "regressions - FAIL"),
        (Outcome.FAILURES, ("broken", "pass"), False, "trouble: broken/pass"),
        (Outcome.REGRESSIONS, ("fail", "fail"), False, "regressions - ALL FAIL"),
    ],
)
def test_the_subject_ends_with_the_outcome_in_a_word(
    outcome: Outcome, jobs: tuple[str, ...], pushed: bool, word: str
) -> None:
    named = tuple((f"job{number}", status) for number, status in enumerate(jobs))
    assert in_a_word(replace(a_report(), outcome=outcome, jobs=named, push=Push(pushed=pushed))) == word


def test_the_subjects_are_those_of_the_real_reports() -> None:
    """What the word depends on is in the file: outcome, jobs, and whether it was pushed."""
    outcomes = {
        "Perfect :-)": Outcome.PERFECT, "Failures :-/ but no regressions.": Outcome.TOLERABLE,
        "Regressions :-(": Outcome.REGRESSIONS, "Failures and problems with tests :-(": Outcome.FAILURES,
    }  # fmt: skip
    rows = [json.loads(line) for line in (GOLDEN / "osstest-reports.jsonl").read_text().splitlines()]
    assert len(rows) == len(read_reports(GOLDEN / "osstest-reports.jsonl").flights)
    for row in rows:
        report = replace(
            a_report(), flight=row["flight"], branch=row["branch"], outcome=outcomes[row["headline"]],
            jobs=tuple(row["jobs"].items()), push=Push(pushed=bool(row["pushed"])),
        )  # fmt: skip
        assert subject(report) == f"[{row['branch']} test] {row['flight']}: {row['verdict']}"


def test_an_unjudged_flight_has_one_list() -> None:
    report = replace(a_report(), outcome=Outcome.UNJUDGED, versions_that={}, push=None)
    text = report_text(report)
    assert "Not compared with a baseline." in text
    assert "Tests which did not succeed:" in text
    assert "blocking" not in text
    assert {one["section"] for one in report_view(report)["failures"]} == {"unjudged"}


def test_long_lists_are_left_out() -> None:
    crowd = tuple(f"Person {number} <p@example.org>" for number in range(MOST_LINES))
    text = report_text(replace(a_report(), people=crowd, logs=(TreeLog(tree="xen", lines=(), length=1234),)))
    assert "300 people touched revisions under test," in text
    assert "Person 7" not in text
    assert "(No revision log; it would be 1234 lines long.)" in text


def test_a_row_without_a_step() -> None:
    row = failure_row(finding("test-arm", JOB_STATUS, Kind.JOB_STATUS, "", status="broken", stepno=None))
    assert row.split() == ["test-arm", "<job", "status>", "broken"]


EVIL = st.text(max_size=60) | st.sampled_from(
    [
        "\r\nBcc: all@example.org",
        "a\n\nb",
        "\x1b[2J",
        "x" * 10_000,
        "\x00",
        "\u2028To: x",
        "\x85X: y",
        "=?utf-8?q?=0AX:_y?=",
    ]
)


@given(job=EVIL, testid=EVIL, note=EVIL, tree=EVIL, person=EVIL, said=EVIL, subject_line=EVIL)
def test_foreign_text_adds_no_header_and_no_line(
    job: str, testid: str, note: str, tree: str, person: str, said: str, subject_line: str
) -> None:
    report = replace(
        a_report(), failures=(finding(job, testid, Kind.REGRESSION, note),), versions_this={tree: tree},
        versions_that={}, people=(person,), push=Push(pushed=False, said=(said,)), jobs=((job, "fail"),),
        logs=(TreeLog(tree=tree, lines=(said,), length=1),),
    )  # fmt: skip
    text = mail_text(report_mail(report, sender="lab@example.org", to="xen-devel@example.org"))
    head = text.partition("\n\n")[0]
    # As it is read: a long line on the wire is folded, and a reader's program puts it together again.
    body = email.message_from_bytes(text.encode(), policy=email.policy.default).get_content()
    names = [line.partition(":")[0].lower() for line in head.split("\n") if not line.startswith((" ", "\t"))]
    assert len(names) == len(set(names))
    assert set(names) <= {
        "from", "to", "subject", "auto-submitted", "content-type", "content-transfer-encoding", "mime-version", "date",
        "message-id", "x-osstest-failures", "x-osstest-versions-this", "x-osstest-versions-that",
    }  # fmt: skip
    plain = report_text(replace(report, failures=(finding("j", "t", Kind.REGRESSION, "n"),), people=("p",),
                                versions_this={"t": "v"}, push=Push(pushed=False, said=("s",)), jobs=(("j", "fail"),),
                                logs=(TreeLog(tree="t", lines=("l",), length=1),)))  # fmt: skip
    assert body.count("\n") <= plain.count("\n") + 1
    other = mail_text(new_mail(subject_line, "x\n", sender="lab@example.org", to="x@example.org"))
    parsed = email.message_from_bytes(other.encode(), policy=email.policy.default)
    assert sorted(name.lower() for name in parsed) == sorted(
        ["from", "to", "subject", "auto-submitted", "content-type", "content-transfer-encoding", "mime-version"]
    )


@pytest.mark.parametrize("text", ["a@b", "ann.b+c@example.org"])
def test_addresses(text: str) -> None:
    assert ADDRESS.fullmatch(text)


@pytest.mark.parametrize(
    "text", ["", "a", "a@", "@b", "a@b\nBcc: c@d", "a@b, c@d", "a b@c", "a@b>", "<a@b>", "a@b\n", "a@-b", "a@b."]
)
def test_what_is_no_address(text: str) -> None:
    assert not ADDRESS.fullmatch(text) or ADDRESS.pattern.endswith("$") is False


TESTS = [("test-a", "s"), ("test-b", "s"), ("test-b", "t")]


@given(now=st.sets(st.sampled_from(TESTS)), before=st.sets(st.sampled_from(TESTS)))
def test_subscriptions_hear_of_changes_only(now: set[tuple[str, str]], before: set[tuple[str, str]]) -> None:
    def hears(wanted: Wanted, **more: str) -> bool:
        one = Subscription(id=1, address="a@b", wanted=wanted, **more)
        return one.concerns("xen-unstable", now, before)

    assert hears(Wanted.ALL)
    assert not hears(Wanted.DIGEST)
    assert hears(Wanted.FIRST_FAIL) == bool(now - before)
    assert hears(Wanted.FIXED) == bool(before - now)
    assert hears(Wanted.FIRST_FAIL, job="test-a") == any(job == "test-a" for job, _ in now - before)
    assert not hears(Wanted.ALL, branch="linux-*")
