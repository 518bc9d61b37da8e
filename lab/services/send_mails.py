"""Send mails: what is kept to be sent goes out beside the leader's work; what a server does not take is tried again."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import mails
from lab.errors import LabError
from lab.flights.report_mail import mail_text, new_mail
from lab.flights.subscriptions import Wanted
from lab.mail import RefusedError, SmtpServer
from lab.services.cron import is_due
from lab.services.show_board import show_board

log = logging.getLogger(__name__)

WAITS: Final = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=8),
)
"""Before each further try; then it is given up, and `lab mail list` says why."""
SENDING: Final = timedelta(minutes=5)
"""Nobody else sends a mail for so long after somebody has begun to."""


def send_mails(lab: Lab) -> int:
    """Send what is due; returns how many were taken. What is wrong with one does not hold up the others."""
    if not lab.mail.server:
        return 0
    write_digests(lab)
    now = lab.clock()
    with lab.reads() as session:
        due = mails.due_mails(session, now)
    server = smtp_server(lab)
    count = 0
    for mail in due:
        with lab.sessions.begin() as session:
            if not mails.claim_mail(session, mail, until=now + SENDING):
                continue
        try:
            server.send(mail.text, sender=lab.mail.sender, recipient=mail.recipient)
        except LabError as error:
            again = None if isinstance(error, RefusedError) else _again(mail.tries, lab.clock())
            log.warning("mail %s to %s was not sent: %s", mail.id, mail.recipient, error.message)
            with lab.sessions.begin() as session:
                mails.note_failed(session, mail.id, error.message, again=again)
            continue
        with lab.sessions.begin() as session:
            mails.note_sent(session, mail.id, lab.clock())
        count += 1
    if count:
        with lab.sessions.begin() as session:
            mails.drop_old(session, lab.clock() - mails.KEPT)
    return count


def _again(tries: int, now: datetime) -> datetime | None:
    return now + WAITS[tries] if tries < len(WAITS) else None


def smtp_server(lab: Lab) -> SmtpServer:
    """The server that the lab's file names."""
    given = lab.mail
    password = Path(given.password_file) if given.password_file else None
    if password is not None and not password.is_absolute():
        password = lab.settings.file.parent / password
    return SmtpServer(server=given.server, port=given.port, tls=given.tls, user=given.user, password_file=password)


def write_digests(lab: Lab, *, now_if_due: bool = True) -> int:
    """Write the digest to everybody who subscribed to it, if it is time to (or anyway); returns to how many."""
    with lab.sessions.begin() as session:
        wanting = [one for one in mails.subscriptions(session) if one.wanted is Wanted.DIGEST]
        if not wanting or (now_if_due and not _digest_is_due(session, lab)):
            return 0
        now = lab.clock()
        body = digest_text(session, lab)
        for address in dict.fromkeys(one.address for one in wanting):
            title = f"[digest] how the branches stand, {now:%Y-%m-%d}"
            mail = new_mail(title, body, sender=lab.mail.sender, to=address)
            mails.put_mail(
                session,
                key=f"digest {now:%Y-%m-%d %H:%M}",
                recipient=address,
                subject=title,
                text=mail_text(mail),
                now=now,
            )
        return len({one.address for one in wanting})


def _digest_is_due(session: Session, lab: Lab) -> bool:
    return bool(lab.mail.digest) and is_due(lab.mail.digest, mails.last_digest(session), lab.clock())


def digest_text(session: Session, lab: Lab) -> str:
    """How every gated branch stands, a paragraph each."""
    lines: list[str] = []
    for line in show_board(session, lab, {name: branch.tree for name, branch in lab.branches.items()}):
        behind = "" if line.distance is None else f", {line.distance} commits behind the tip"
        lines.append(f"{line.name}: {line.state.value}, let through {line.tested[:12] or 'nothing'}{behind}")
        lines += [
            f"  {one.job} {one.testid} {one.note}" + (f" since flight {one.since_flight}" if one.since_flight else "")
            for one in line.blockers
        ]
        lines.append("")
    return "\n".join(lines or ["No branch has a gate.", ""])
