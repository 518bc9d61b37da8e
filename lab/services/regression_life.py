"""Regression life: what verdicts, bisections and people do to the regressions of a branch."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts, judging, regressions
from lab.db.judging import Versions
from lab.errors import ConfigError
from lab.flights.regression_life import (
    Failed,
    KnownIssue,
    ToldRegression,
    after_verdict,
    counts_as_regression,
    passed_tests,
)
from lab.flights.report_mail import ADDRESS
from lab.flights.signature import normalise, signature
from lab.flights.verdict import Verdict


def record_verdict(session: Session, lab: Lab, branch: str, versions: Versions, verdict: Verdict) -> list[int]:
    """Take the regressions of a branch on by a verdict; returns the numbers of those that something happened to.

    Idempotent: a flight that they know already, or an older one, changes nothing.
    """
    now = lab.clock()
    known = regressions.of_branch(session, branch)
    found = [one for one in verdict.findings if counts_as_regression(one)]
    tests = {one.signature for one in found} | {one.test for one in known}
    same = {verdict.flight, *judging.flights_testing(session, branch, versions.this)}
    seen = judging.what_came_of(session, same, tests)
    texts = regressions.failure_texts(session, same, tests)
    failed = []
    names = hosts.host_names(session) if found else []
    for one in found:
        text = texts.get((one.seen_in or verdict.flight, one.job, one.testid), "")
        fails = sum(status in ("fail", "broken") for status in seen.get(one.signature, {}).values())
        failed.append(Failed(finding=one, text=text, signature=signature(text, names), fails=max(1, fails)))
    passed = passed_tests(seen, same)
    changes = after_verdict(known, failed, passed, branch=branch, flight=verdict.flight, now=now)
    return [
        regressions.save_change(session, change, actor="gate", now=now, flight=verdict.flight) for change in changes
    ]


def note_failures(session: Session, lab: Lab, *, attempt: int, branch: str, flight: int, job: str) -> None:
    """Remember the messages of an attempt that has ended, so that it is known when each appeared first."""
    bad = regressions.bad_steps(session, attempt)
    names = hosts.host_names(session) if bad else []
    for testid, text in bad:
        regressions.note_failure(
            session, signature=signature(text, names), branch=branch, job=job, testid=testid, flight=flight,
            sample=text, now=lab.clock(),
        )  # fmt: skip


def tell_regression(session: Session, lab: Lab, number: int) -> ToldRegression:
    """A regression with its life, where its message appeared first, and what people know of it."""
    one = regressions.load_regression(session, number)
    text = normalise(one.sample)
    issues = [
        issue for issue in regressions.known_issues(session, lab.clock()) if issue.matches(one.job, one.testid, text)
    ]
    return ToldRegression(
        regression=one, events=tuple(regressions.events_of(session, number)),
        first_seen=regressions.first_seen(session, one.signature), issues=tuple(issues),
    )  # fmt: skip


def add_known_issue(
    session: Session, lab: Lab, *, job: str, testid: str, text: str, owner: str, reason: str, url: str, actor: str,
    expires: datetime,
) -> int:  # fmt: skip
    """Keep that somebody knows of a failure and stands for it until then; `ConfigError` when something is wrong."""
    now = lab.clock()
    given = (
        ("job", job, 128),
        ("testid", testid, 128),
        ("text", text, 300),
        ("reason", reason, 2000),
        ("url", url, 500),
    )
    for name, value, longest in given:
        if len(value) > longest or not value.isprintable():
            raise ConfigError(f"the {name} is not printable text of at most {longest} characters")
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url!r} is no address of a page", hint="https://…")
    check_owner(owner)
    if not reason.strip():
        raise ConfigError("the reason is missing", hint="say what is known: --reason '...'")
    if not now < expires:
        raise ConfigError("it must end in the future", hint="e.g. --for 30d")
    issue = KnownIssue(
        id=0, job=job, testid=testid, text=normalise(text) if text else "", owner=owner, reason=reason, url=url,
        actor=actor, created=now, expires=expires,
    )  # fmt: skip
    return regressions.add_issue(session, issue)


def check_owner(owner: str) -> None:
    """Raise `ConfigError` when this is no name of a person or team, and no address."""
    if not (ADDRESS.fullmatch(owner) or (0 < len(owner) <= 100 and owner.isprintable() and owner.strip() == owner)):
        raise ConfigError(f"{owner[:60]!r} is no name of an owner", hint="a name or an address of mail")
