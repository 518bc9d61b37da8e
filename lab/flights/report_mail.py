"""A report as a mail that a machine can read, too: OSSTest's `X-Osstest-` headers over its layout. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from typing import Any, Final

from lab.flights.report import Report, subject
from lab.flights.report_text import one_line, report_text

ADDRESS: Final = re.compile(r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")
"""An address of mail, and nothing that could be taken for two or for a header."""

LONGEST_LINE: Final = 990
"""Bytes of a line that every mail server takes (RFC 5321: 998); a body with longer ones is encoded."""

FAILURES: Final = "X-Osstest-Failures"
VERSIONS_THIS: Final = "X-Osstest-Versions-This"
VERSIONS_THAT: Final = "X-Osstest-Versions-That"
_LISTS: Final = frozenset(name.lower() for name in (FAILURES, VERSIONS_THIS, VERSIONS_THAT))
_BETWEEN: Final = "    "
_UNFIT: Final = re.compile(r"[^!-~ ]")


class ReportPolicy(EmailPolicy):
    """Writes the lists in `X-Osstest-` headers as OSSTest does: an entry a line, each indented by four."""

    def fold(self, name: str, value: Any) -> str:
        """The header as lines."""
        if name.lower() in _LISTS:
            entries = str(value).strip().split(_BETWEEN)
            return f"{name}:{''.join(f'{self.linesep}{_BETWEEN}{entry}' for entry in entries)}{self.linesep}"
        return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        """The header as bytes."""
        if name.lower() in _LISTS:
            return self.fold(name, value).encode("ascii")
        return super().fold_binary(name, value)


POLICY: Final = ReportPolicy(max_line_length=900)  # a subject stays in one line, for scripts that look for it


def report_mail(report: Report, *, sender: str, to: str) -> EmailMessage:
    """The mail about a flight from `sender` to one address. Write it with `mail_text`."""
    mail = new_mail(subject(report), report_text(report), sender=sender, to=to)
    mail["Date"] = format_datetime(report.at)
    mail["Message-ID"] = f"<flightline-{report.flight}-{_word(report.branch)}-report@{domain_of(sender)}>"
    failures = (
        f"{_word(report.branch)}:{_word(one.job)}:{_word(one.testid)}:{_word(one.status)}:{report.section_of(one).value}"
        for one in report.failures
    )
    _set_list(mail, FAILURES, failures)
    _set_list(mail, VERSIONS_THIS, _versions(report.versions_this))
    _set_list(mail, VERSIONS_THAT, _versions(report.versions_that))
    return mail


def new_mail(title: str, body: str, *, sender: str, to: str) -> EmailMessage:
    """A mail of plain text: one part, readable as it is."""
    mail = EmailMessage(policy=POLICY)
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = _no_code(one_line(title, longest=200))
    mail["Auto-Submitted"] = "auto-generated"
    longest = max((len(line.encode()) for line in body.split("\n")), default=0)
    plain = "7bit" if body.isascii() else "8bit"
    mail.set_content(body, cte=plain if longest <= LONGEST_LINE else "quoted-printable")
    return mail


def mail_text(mail: EmailMessage) -> str:
    """The mail as an `.eml` file has it, in UTF-8 and with line feeds."""
    return mail.as_bytes().decode()


def _set_list(mail: EmailMessage, name: str, entries: Iterable[str]) -> None:
    if joined := _BETWEEN.join(entries):
        mail[name] = _no_code(joined)


def _versions(versions: Mapping[str, str]) -> list[str]:
    return [f"{_word(tree)}={_word(revision)}" for tree, revision in sorted(versions.items())]


def _word(text: str) -> str:
    """Text that cannot be taken for the end of an entry or of its part."""
    return re.sub(r" +", " ", _UNFIT.sub("?", text).replace(":", "_")).strip()[:150]


def _no_code(text: str) -> str:
    """Text in which nothing is an encoded word (RFC 2047): one could decode to the end of the header."""
    return text.replace("=?", "=_?")


def domain_of(sender: str) -> str:
    """Where a sender is, for identifiers of mails."""
    found = re.search(r"@([A-Za-z0-9.-]+)>?$", sender)
    return found[1] if found else "localhost"
