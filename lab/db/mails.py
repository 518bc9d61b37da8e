"""Mails that are to be sent or were, and who wants which: a mail is written in the transaction of what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lab.db.session import insert_unless_there, matched
from lab.db.tables import MailRow, SubscriptionRow
from lab.errors import NotFoundError
from lab.flights.subscriptions import Subscription, Wanted

WAITING: Final = "waiting"
SENT: Final = "sent"
FAILED: Final = "failed"


@dataclass(frozen=True, kw_only=True)
class StoredMail:
    """A mail as it is kept; `text` is the whole of it, headers and all."""

    id: int
    recipient: str
    subject: str
    text: str
    created: datetime
    state: str
    tries: int
    due: datetime
    error: str
    sent: datetime | None


def put_mail(session: Session, *, key: str, recipient: str, subject: str, text: str, now: datetime) -> None:
    """Keep a mail to be sent; the same `key` (what it is about) is sent to the same recipient once."""
    insert_unless_there(
        session,
        MailRow,
        [
            {"key": key, "recipient": recipient, "subject": subject, "content": text, "created": now, "state": WAITING,
             "tries": 0, "due": now, "error": "", "sent": None}
        ],
    )  # fmt: skip


def _mail(row: MailRow) -> StoredMail:
    return StoredMail(
        id=row.id, recipient=row.recipient, subject=row.subject, text=row.content, created=row.created, state=row.state,
        tries=row.tries, due=row.due, error=row.error, sent=row.sent,
    )  # fmt: skip


def due_mails(session: Session, now: datetime, *, limit: int = 50) -> list[StoredMail]:
    """The mails to send now, the oldest first."""
    query = select(MailRow).where(MailRow.state == WAITING, MailRow.due <= now).order_by(MailRow.id).limit(limit)
    return [_mail(row) for row in session.scalars(query)]


def claim_mail(session: Session, mail: StoredMail, *, until: datetime) -> bool:
    """Make sure that nobody else sends it until then; False when somebody was quicker. Counts as a try."""
    claim = update(MailRow).where(MailRow.id == mail.id, MailRow.state == WAITING, MailRow.tries == mail.tries)
    return matched(session, claim.values(tries=mail.tries + 1, due=until))


def note_sent(session: Session, mail: int, now: datetime) -> None:
    """It was taken by the server."""
    session.execute(update(MailRow).where(MailRow.id == mail).values(state=SENT, sent=now, error=""))


def note_failed(session: Session, mail: int, error: str, *, again: datetime | None) -> None:
    """It was not; it is tried `again` then, or (None) never."""
    values = {"error": error[:2000], "state": WAITING if again else FAILED}
    session.execute(update(MailRow).where(MailRow.id == mail).values(**values, **({"due": again} if again else {})))


def try_again(session: Session, mail: int, now: datetime) -> None:
    """Send it anew; `NotFoundError` when there is none of this number."""
    if not matched(session, update(MailRow).where(MailRow.id == mail).values(state=WAITING, tries=0, due=now)):
        raise NotFoundError(f"there is no mail {mail}", hint="`lab mail list` shows them")


def list_mails(session: Session, *, state: str = "", limit: int = 50) -> list[StoredMail]:
    """The newest mails first."""
    query = select(MailRow).order_by(MailRow.id.desc()).limit(limit)
    return [_mail(row) for row in session.scalars(query.where(MailRow.state == state) if state else query)]


def last_digest(session: Session) -> datetime | None:
    """When a digest was last written."""
    return session.scalar(
        select(MailRow.created).where(MailRow.key.startswith("digest ")).order_by(MailRow.id.desc()).limit(1)
    )


def drop_old(session: Session, before: datetime) -> None:
    """Forget what was sent so long ago."""
    session.query(MailRow).where(MailRow.state == SENT, MailRow.sent < before).delete()


def add_subscription(session: Session, subscription: Subscription, *, now: datetime) -> int:
    """Keep a wish; returns its number, the old one's if it was there."""
    same = select(SubscriptionRow.id).where(
        SubscriptionRow.address == subscription.address, SubscriptionRow.wanted == subscription.wanted.value,
        SubscriptionRow.branch == subscription.branch, SubscriptionRow.job == subscription.job,
    )  # fmt: skip
    if (found := session.scalar(same)) is not None:
        return found
    row = SubscriptionRow(
        address=subscription.address, wanted=subscription.wanted.value, branch=subscription.branch,
        job=subscription.job, created=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def remove_subscription(session: Session, number: int) -> None:
    """Forget a wish; `NotFoundError` when there is none of this number."""
    row = session.get(SubscriptionRow, number) if 0 < number < 1 << 31 else None
    if row is None:
        raise NotFoundError(f"there is no subscription {number}", hint="`lab subscription list` shows them")
    session.delete(row)


def subscriptions(session: Session) -> list[Subscription]:
    """Everybody's wishes."""
    return [
        Subscription(id=row.id, address=row.address, wanted=Wanted(row.wanted), branch=row.branch, job=row.job)
        for row in session.scalars(select(SubscriptionRow).order_by(SubscriptionRow.id))
    ]


KEPT: Final = timedelta(days=90)
"""How long mails that were sent are remembered."""
