"""A report as text, in the layout of OSSTest's mails, so that people and their scripts find what they know. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from lab.flights.plain_text import clean
from lab.flights.report import Report
from lab.flights.standing import Since
from lab.flights.verdict import HEADLINES, JOB_STATUS, NONE_EXECUTED, Finding, Outcome, Section

TITLES: Final[Mapping[Section, tuple[str, ...]]] = {
    Section.BLOCKING: (
        "Tests which did not succeed and are blocking,",
        "including tests which could not be run:",
    ),
    Section.INTERMITTENT: ("Tests which are failing intermittently (not blocking):",),
    Section.ALLOWABLE: ("Regressions which are regarded as allowable (not blocking):",),
    Section.NONBLOCKING: ("Tests which did not succeed, but are not blocking:",),
    Section.UNJUDGED: ("Tests which did not succeed:",),
}
MOST_LINES: Final = 300
"""A revision log of so many lines, and a list of so many people, is left out."""

_RULE: Final = "-" * 60
_WIDTH: Final = 79
_LONGEST: Final = 500
_TERMINATORS: Final = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_INDENTED: Final = ("like ", "n/a")


def one_line(text: str, *, longest: int = _LONGEST) -> str:
    """Untrusted text as part of a line: nothing in it ends the line, moves the cursor, or is longer than `longest`.

    >>> one_line("Ann\\r\\nBcc: everybody@example.org\\x1b[2J")
    'Ann Bcc: everybody@example.org'
    """
    flat = clean(_TERMINATORS.sub(" ", text)).encode("utf-8", "replace").decode().rstrip()
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def report_text(report: Report) -> str:
    """The whole text; its lines end with a line feed, none has more than about 500 characters."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield one_line(f"flight {report.flight} {report.branch} {report.blessing} [{report.intended}]")
    if report.url:
        yield one_line(f"{report.url}/flights/{report.flight}/report")
    yield ""
    yield HEADLINES[report.outcome]
    if report.outcome is Outcome.PERFECT:
        yield "All tests in this flight passed as required"
    yield ""
    for section, titles in TITLES.items():
        if found := report.of(section):
            yield from titles
            yield from map(failure_row, found)
            yield ""
    yield from _versions("version targeted for testing:", report.versions_this)
    yield from _versions("baseline version:", report.versions_that)
    if report.versions_this or report.versions_that:
        yield ""
    yield from _standing(report)
    yield _RULE
    yield from _people(report.people)
    yield "jobs:"
    for name, status in report.jobs:
        yield f" {one_line(name):<60} {one_line(status):<8}"
    yield ""
    yield ""
    if report.url:
        yield _RULE
        yield "Logs, config files, etc. are available at"
        yield one_line(f"    {report.url}/flights/{report.flight}")
        yield ""
    yield from _broken(report)
    yield from _push(report)
    yield from _logs(report)


def failure_row(failure: Finding) -> str:
    """A row of a section: job, stepno, testid, status and note in columns, squeezed from the right if it is too long.

    >>> from lab.flights.verdict import Kind
    >>> one = Finding(job="test-amd64-amd64-xl-rtds", stepno=20, testid="guest-localmigrate/x10", status="fail",
    ...               kind=Kind.ALLOWABLE, blocks=False, note="REGR. vs. 152332")
    >>> failure_row(one)
    ' test-amd64-amd64-xl-rtds     20 guest-localmigrate/x10   fail REGR. vs. 152332'
    """
    status = f"{failure.status} in {failure.seen_in}" if failure.seen_in else failure.status
    stepno = "" if failure.stepno is None or failure.testid in (JOB_STATUS, NONE_EXECUTED) else str(failure.stepno)
    note = one_line(failure.note)
    if note == "never pass":
        note = f"  {note}"
    elif note.startswith(_INDENTED):
        note = f" {note}"
    row = f" {one_line(failure.job):<28} {stepno:>2} {one_line(failure.testid):<28} {one_line(status)} {note}".rstrip()
    while len(row) > _WIDTH and (at := row.rfind("  ")) > 0:
        row = row[:at] + row[at + 1 :]
    return row


def _versions(title: str, versions: Mapping[str, str]) -> Iterator[str]:
    if versions:
        yield title
        for tree, revision in sorted(versions.items()):
            yield f" {one_line(tree):<20} {one_line(revision)}"


def _standing(report: Report) -> Iterator[str]:
    basis, failing, testing = report.standing.basis, report.standing.failing, report.standing.testing
    if basis:
        yield _since("Last test of basis", basis)
    if failing and (testing is None or failing.flight != testing.flight):
        yield f"{_since('Failing since', failing)} {failing.attempts:>4} attempts"
    if testing:
        yield f"{_since('Testing same since', testing)} {testing.attempts:>4} attempts"
    if basis or failing or testing:
        yield ""


def _since(title: str, since: Since) -> str:
    return f"{title:<20} {since.flight:>7}  {since.started:%Y-%m-%d %H:%M:%S} Z {since.days:>4} days"


def _people(people: tuple[str, ...]) -> Iterator[str]:
    if len(people) >= MOST_LINES:
        yield f"{len(people)} people touched revisions under test,"
        yield "not listing them all"
        yield ""
    elif people:
        yield "People who touched revisions under test:"
        for person in people:
            yield f"  {one_line(person)}"
        yield ""


def _broken(report: Report) -> Iterator[str]:
    """What the bisector of OSSTest looks for: it leaves flights alone in which the lab itself was broken."""
    jobs = [name for name, status in report.jobs if status == "broken"]
    for name in jobs:
        yield f"broken-job {one_line(name)} broken"
    for one in report.failures:
        if one.status == "broken" and one.testid != JOB_STATUS and one.seen_in is None:
            yield f"broken-step {one_line(one.job)} {one_line(one.testid)}"
    if jobs:
        yield ""


def _push(report: Report) -> Iterator[str]:
    if report.push is None:
        return
    if report.push.pushed:
        yield ""
        yield "Pushing revision :"
        yield ""
    else:
        yield "Not pushing."
        yield ""
    for line in report.push.said:
        yield f"  {one_line(line)}"
    if report.push.said:
        yield ""


def _logs(report: Report) -> Iterator[str]:
    logs = [log for log in report.logs if log.length]
    length = sum(log.length for log in logs)
    if not length:
        return
    if length >= MOST_LINES or any(not log.lines for log in logs):
        yield f"(No revision log; it would be {length} lines long.)"
        return
    yield _RULE
    for log in logs:
        if len(logs) > 1:
            yield f"tree {one_line(log.tree)}:"
            yield ""
        yield from map(one_line, log.lines)
        yield ""
