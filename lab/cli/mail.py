"""`lab mail`: list, send, retry, digest, test; `lab subscription`: add, list, remove."""

from __future__ import annotations

import re

import click
from rich.table import Table
from rich.text import Text

from lab.cli.opening import open_lab
from lab.cli.render import ago, json_option, output, print_json
from lab.db import mails
from lab.db.board import LARGEST_ID
from lab.errors import ConfigError
from lab.flights.plain_text import clean
from lab.flights.report_mail import ADDRESS, mail_text, new_mail
from lab.flights.subscriptions import Subscription, Wanted
from lab.services.send_mails import send_mails, smtp_server, write_digests

_GLOB = re.compile(r"[A-Za-z0-9*?\[\]!._-]{1,100}")
_LOOK = {"waiting": ("·", "cyan"), "sent": ("✓", "green"), "failed": ("✗", "bold red")}


@click.group()
def mail() -> None:
    """Mails about gates and bisections: what waits, what was sent, what no server took."""


@mail.command("list")
@click.option("--state", type=click.Choice(sorted(_LOOK)), default=None, help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def list_(state: str | None, limit: int, *, as_json: bool) -> None:
    """The newest mails."""
    lab = open_lab()
    with lab.reads() as session:
        found = mails.list_mails(session, state=state or "", limit=limit)
    if as_json:
        print_json(
            [
                {
                    "mail": one.id, "to": one.recipient, "subject": one.subject, "state": one.state, "tries": one.tries,
                    "created": one.created.isoformat(), "sent": one.sent.isoformat() if one.sent else None,
                    "error": one.error,
                }
                for one in found
            ]
        )  # fmt: skip
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("mail", "state", "to", "subject", "written", ""):
        table.add_column(column)
    for one in found:
        icon, style = _LOOK[one.state]
        table.add_row(
            str(one.id), Text(f"{icon} {one.state}", style=style), clean(one.recipient), Text(clean(one.subject)),
            ago(one.created, lab.clock()), Text(clean(one.error)),
        )  # fmt: skip
    output().print(table if found else "No mail was written yet.")


@mail.command()
def send() -> None:
    """Send now what is due, without waiting for the leader."""
    lab = open_lab()
    if not lab.mail.server:
        raise ConfigError("no mail server is named", hint="add a [mail] table with server = ... to the lab's file")
    output().print(f"{send_mails(lab)} sent")


@mail.command()
@click.argument("number", type=click.IntRange(1, LARGEST_ID))
def retry(number: int) -> None:
    """Send mail NUMBER anew, given up or sent."""
    lab = open_lab()
    with lab.sessions.begin() as session:
        mails.try_again(session, number, lab.clock())
    output().print(f"mail {number} waits to be sent")


@mail.command()
def digest() -> None:
    """Write the digest now to everybody who subscribed to it (for cron; [mail] digest does it by itself)."""
    lab = open_lab()
    output().print(f"written to {write_digests(lab, now_if_due=False)}")


@mail.command()
@click.argument("address")
def test(address: str) -> None:
    """Send a mail to ADDRESS at once, to see whether the settings are right."""
    lab = open_lab()
    if not lab.mail.server:
        raise ConfigError("no mail server is named", hint="add a [mail] table with server = ... to the lab's file")
    text = mail_text(new_mail("Flightline can send mail", "It can.\n", sender=lab.mail.sender, to=_address(address)))
    smtp_server(lab).send(text, sender=lab.mail.sender, recipient=address)
    output().print(f"{lab.mail.server}:{lab.mail.port} took a mail to {address}", markup=False)


@click.group()
def subscription() -> None:
    """Who is told of what by mail."""


@subscription.command()
@click.argument("address")
@click.option(
    "--kind", "wanted", type=click.Choice([one.value for one in Wanted]), default=Wanted.FIRST_FAIL.value,
    show_default=True, help="When to be told: a test begins to block, is fixed, every report, or how all stands.",
)  # fmt: skip
@click.option("--branch", default="*", show_default=True, help="Branches, by a glob.")
@click.option("--job", default="*", show_default=True, help="Jobs, by a glob.")
def add(address: str, wanted: str, branch: str, job: str) -> None:
    """Tell ADDRESS."""
    for name, glob in (("branch", branch), ("job", job)):
        if not _GLOB.fullmatch(glob):
            raise ConfigError(f"{glob!r} is no glob for a {name}", hint="letters, digits, '*', '?', '.', '_' and '-'")
    lab = open_lab()
    wish = Subscription(id=0, address=_address(address), wanted=Wanted(wanted), branch=branch, job=job)
    with lab.sessions.begin() as session:
        number = mails.add_subscription(session, wish, now=lab.clock())
    output().print(f"subscription {number}: {address} {wanted} {branch} {job}", markup=False)


def _address(text: str) -> str:
    if not ADDRESS.fullmatch(text):
        raise ConfigError(f"{text[:80]!r} is no address of mail", hint="e.g. ann@example.org")
    return text


@subscription.command("list")
@json_option
def list_subscriptions(*, as_json: bool) -> None:
    """All subscriptions."""
    lab = open_lab()
    with lab.reads() as session:
        found = mails.subscriptions(session)
    if as_json:
        print_json(
            [
                {"subscription": one.id, "address": one.address, "kind": one.wanted.value, "branch": one.branch,
                 "job": one.job}
                for one in found
            ]
        )  # fmt: skip
        return
    for one in found:
        output().print(f"{one.id:>4}  {one.address}  {one.wanted.value}  {one.branch}  {one.job}", markup=False)
    if not found:
        output().print("Nobody has subscribed to anything.")


@subscription.command()
@click.argument("number", type=click.IntRange(1))
def remove(number: int) -> None:
    """Remove subscription NUMBER."""
    lab = open_lab()
    with lab.sessions.begin() as session:
        mails.remove_subscription(session, number)
    output().print(f"subscription {number} is removed")
