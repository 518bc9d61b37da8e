"""Rows of regressions and their lives, of messages and where they appeared first, and of what people know of."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lab.db.board import LARGEST_ID
from lab.db.flights import add_event
from lab.db.session import matched, upsert
from lab.db.tables import (
    AttemptRow,
    FailureSignatureRow,
    KnownIssueRow,
    RegressionEventRow,
    RegressionRow,
    StepRow,
)
from lab.errors import NotFoundError
from lab.flights.past_results import Signature
from lab.flights.regression_life import Change, FirstSeen, KnownIssue, Life, Regression, RegressionEvent, move
from lab.flights.signature import normalise

OPEN = tuple(life.value for life in Life if life.open)


def _regression(row: RegressionRow) -> Regression:
    return Regression(
        id=row.id, branch=row.branch, job=row.job, testid=row.testid, signature=row.signature, sample=row.sample,
        life=Life(row.life), first_flight=row.first_flight, last_flight=row.last_flight, since=row.since,
        changed=row.changed, owner=row.owner, bisection=row.bisection, culprit=row.culprit, passes=row.passes,
    )  # fmt: skip


def of_branch(session: Session, branch: str) -> list[Regression]:
    """Every regression of a branch, the oldest first."""
    query = select(RegressionRow).where(RegressionRow.branch == branch).order_by(RegressionRow.id)
    return [_regression(row) for row in session.scalars(query)]


def list_regressions(
    session: Session, *, branch: str = "", lives: Collection[Life] = (), before: int | None = None, limit: int = 100
) -> list[Regression]:
    """The newest regressions first."""
    query = select(RegressionRow).order_by(RegressionRow.id.desc()).limit(limit)
    if branch:
        query = query.where(RegressionRow.branch == branch)
    if lives:
        query = query.where(RegressionRow.life.in_([life.value for life in lives]))
    if before is not None:
        query = query.where(RegressionRow.id < before)
    return [_regression(row) for row in session.scalars(query)]


def load_regression(session: Session, number: int) -> Regression:
    """One regression; `NotFoundError` when there is none of this number."""
    row = session.get(RegressionRow, number) if 0 < number <= LARGEST_ID else None
    if row is None:
        raise NotFoundError(f"there is no regression {number}", hint="`lab regression list` shows them")
    return _regression(row)


def open_ones(session: Session, branch: str, tests: Collection[Signature]) -> dict[Signature, Regression]:
    """The open regressions of these tests, the newest of each."""
    query = select(RegressionRow).where(
        RegressionRow.branch == branch, RegressionRow.job.in_({job for job, _ in tests}), RegressionRow.life.in_(OPEN)
    )
    found = {(row.job, row.testid): _regression(row) for row in session.scalars(query.order_by(RegressionRow.id))}
    return {test: one for test, one in found.items() if test in tests}


def save_change(session: Session, change: Change, *, actor: str, now: datetime, flight: int | None = None) -> int:
    """Keep what happened to a regression; returns its number."""
    one = change.regression
    values = {
        "life": one.life.value, "last_flight": one.last_flight, "changed": one.changed, "owner": one.owner,
        "bisection": one.bisection, "culprit": one.culprit[:128], "passes": one.passes,
    }  # fmt: skip
    if one.id:
        session.execute(update(RegressionRow).where(RegressionRow.id == one.id).values(**values))
        number = one.id
    else:
        row = RegressionRow(
            branch=one.branch, job=one.job, testid=one.testid, signature=one.signature, sample=one.sample,
            first_flight=one.first_flight, since=one.since, **values,
        )  # fmt: skip
        session.add(row)
        session.flush()
        number = row.id
    if change.reason:
        session.add(
            RegressionEventRow(
                regression=number, at=now, old=change.old.value if change.old else "", new=one.life.value, actor=actor,
                reason=change.reason, flight=flight,
            )
        )  # fmt: skip
        add_event(session, kind="regression", now=now, flight=None, data={"regression": number, "life": one.life.value})
    return number


def events_of(session: Session, number: int) -> list[RegressionEvent]:
    """The life of a regression, line by line."""
    query = select(RegressionEventRow).where(RegressionEventRow.regression == number).order_by(RegressionEventRow.id)
    return [
        RegressionEvent(at=row.at, old=row.old, new=row.new, actor=row.actor, reason=row.reason, flight=row.flight)
        for row in session.scalars(query)
    ]


def bisection_moves(
    session: Session, branch: str, test: Signature, to: Life, *, reason: str, now: datetime, bisection: int,
    culprit: str = "",
) -> None:  # fmt: skip
    """What a bisection of a test does to its open regressions; nothing when there are none."""
    query = select(RegressionRow).where(
        RegressionRow.branch == branch, RegressionRow.job == test[0], RegressionRow.testid == test[1],
        RegressionRow.life.in_(OPEN),
    )  # fmt: skip
    for row in list(session.scalars(query)):
        one = _regression(row)
        if to is Life.CONFIRMED and one.life is not Life.BISECTING:
            continue
        moved = move(one, to, bisection=bisection, culprit=culprit or one.culprit, changed=now)
        save_change(session, Change(regression=moved, old=one.life, reason=reason), actor="bisection", now=now)


def set_owner(session: Session, number: int, owner: str, *, actor: str, reason: str, now: datetime) -> None:
    """Say whose a regression is; `NotFoundError` when there is none of this number."""
    one = load_regression(session, number)
    session.execute(update(RegressionRow).where(RegressionRow.id == number).values(owner=owner))
    told = f"{owner or 'nobody'} sees to it" + (f": {reason}" if reason else "")
    session.add(
        RegressionEventRow(
            regression=number, at=now, old=one.life.value, new=one.life.value, actor=actor, reason=told, flight=None
        )
    )


def failure_texts(
    session: Session, flights: Collection[int], tests: Collection[Signature]
) -> dict[tuple[int, str, str], str]:
    """(flight, job, testid) -> what the step said, of the newest attempt."""
    query = (
        select(AttemptRow.flight, AttemptRow.job, StepRow.testid, StepRow.reason)
        .join(StepRow, StepRow.attempt == AttemptRow.id)
        .where(AttemptRow.flight.in_(flights), AttemptRow.job.in_({job for job, _ in tests}))
        .where(StepRow.testid.in_({testid for _, testid in tests}))
        .order_by(AttemptRow.number)
    )
    return {(row.flight, row.job, row.testid): row.reason for row in session.execute(query)}


def bad_steps(session: Session, attempt: int) -> list[tuple[str, str]]:
    """(testid, what it said) of the steps of an attempt that failed or were broken."""
    query = select(StepRow.testid, StepRow.reason).where(
        StepRow.attempt == attempt, StepRow.status.in_(("fail", "broken"))
    )
    return [(row.testid, row.reason) for row in session.execute(query.order_by(StepRow.stepno))]


def note_failure(
    session: Session, *, signature: str, branch: str, job: str, testid: str, flight: int, sample: str, now: datetime
) -> None:
    """Remember that a message has appeared."""
    table = FailureSignatureRow
    statement = upsert(session, table).values(
        signature=signature, branch=branch, job=job, testid=testid, first_flight=flight, first_at=now,
        last_flight=flight, count=1, sample=sample[:500],
    )  # fmt: skip
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[table.signature, table.branch, table.job, table.testid],
            set_={"last_flight": flight, "count": table.count + 1},
        )
    )


def first_seen(session: Session, signature: str) -> FirstSeen | None:
    """Where a message appeared first, on whichever branch and test; None when it never did."""
    query = select(FailureSignatureRow).where(FailureSignatureRow.signature == signature)
    rows = list(session.scalars(query.order_by(FailureSignatureRow.first_flight)))
    if not rows:
        return None
    first = rows[0]
    return FirstSeen(
        signature=signature, flight=first.first_flight, branch=first.branch, job=first.job, at=first.first_at,
        last_flight=max(row.last_flight for row in rows), count=sum(row.count for row in rows),
    )  # fmt: skip


def _issue(row: KnownIssueRow) -> KnownIssue:
    return KnownIssue(
        id=row.id, job=row.job, testid=row.testid, text=row.words, owner=row.owner, reason=row.reason, url=row.url,
        actor=row.actor, created=row.created, expires=row.expires, ended=row.ended,
    )  # fmt: skip


def known_issues(session: Session, now: datetime | None = None) -> list[KnownIssue]:
    """What people know of, the newest first; with `now` only what is in force then."""
    query = select(KnownIssueRow).order_by(KnownIssueRow.id.desc())
    if now is not None:
        query = query.where(KnownIssueRow.expires > now, KnownIssueRow.ended.is_(None))
    return [_issue(row) for row in session.scalars(query.limit(1000))]


def add_issue(session: Session, issue: KnownIssue) -> int:
    """Keep it; returns its number."""
    row = KnownIssueRow(
        job=issue.job, testid=issue.testid, words=issue.text, owner=issue.owner, reason=issue.reason, url=issue.url,
        actor=issue.actor, created=issue.created, expires=issue.expires, ended=None,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def end_issue(session: Session, number: int, now: datetime) -> None:
    """Take it back; `NotFoundError` when none of this number is in force."""
    done = number <= LARGEST_ID and matched(
        session,
        update(KnownIssueRow).where(KnownIssueRow.id == number, KnownIssueRow.ended.is_(None)).values(ended=now),
    )
    if not done:
        raise NotFoundError(f"there is no known issue {number}", hint="`lab known-issue list` shows them")


def owners(session: Session, branch: str, tests: Iterable[Signature], now: datetime) -> dict[Signature, str]:
    """Who sees to the failures of these tests: who has the regression, or stands for the known issue."""
    wanted = set(tests)
    mine = open_ones(session, branch, wanted) if wanted else {}
    issues = known_issues(session, now) if wanted else []
    found = {}
    for test in wanted:
        one = mine.get(test)
        if one is not None and one.owner:
            found[test] = one.owner
            continue
        text = normalise(one.sample) if one is not None else ""
        if issue := next((issue for issue in issues if issue.matches(*test, text)), None):
            found[test] = issue.owner
    return found
