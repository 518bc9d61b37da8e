"""Mails on their way: kept with what they tell, sent once to a real SMTP server, and tried again if need be."""

from __future__ import annotations

import email
import email.policy
import json
import smtplib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner
from factories import later
from gate_lab import NAME, World
from servers import free_port

from lab.context import Lab
from lab.db import mails
from lab.flights.report_mail import mail_text, new_mail
from lab.flights.subscriptions import Subscription, Wanted
from lab.labfile import MailSettings
from lab.services.report import report_flight
from lab.services.send_mails import send_mails, write_digests
from lab.vcs import Trees

ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Inbox:
    """A mail server that keeps what it gets, unless it is told to refuse."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], Any]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.answer.startswith("250"):
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.mails.append((envelope.mail_from, envelope.rcpt_tos, mail))
        return self.answer


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    box, port = Inbox(), free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


def with_mail(world: World, port: int, **more: Any) -> None:
    settings = MailSettings(server="127.0.0.1", port=port, sender="lab@example.org", to=("devel@example.org",), **more)
    world.lab = replace(world.lab, mail=settings)


def subscribe(lab: Lab, address: str, wanted: Wanted, **more: str) -> int:
    with lab.sessions.begin() as session:
        wish = Subscription(id=0, address=address, wanted=wanted, **more)
        return mails.add_subscription(session, wish, now=lab.clock())


def sent_to(box: Inbox) -> list[tuple[str, str]]:
    return sorted((to[0], str(mail["Subject"])) for _, to, mail in box.mails)


def test_a_gate_tells_by_mail_how_it_decided_and_each_hears_what_they_asked_for(
    make_world: Callable[..., World],
    inbox: tuple[Inbox, int],
) -> None:
    from bisection_lab import JOB, PRODUCT, TESTID

    box, port = inbox
    world = make_world()
    with_mail(world, port, url="https://lab.example.org")
    subscribe(world.lab, "first@example.org", Wanted.FIRST_FAIL)
    subscribe(world.lab, "other@example.org", Wanted.FIRST_FAIL, job="test-other*")
    subscribe(world.lab, "fixed@example.org", Wanted.FIXED)
    assert subscribe(world.lab, "fixed@example.org", Wanted.FIXED) == 3  # the same wish again is the same

    good = world.run()
    assert send_mails(world.lab) == 1
    assert sent_to(box) == [("devel@example.org", f"[{NAME} test] {good.flight}: all pass - PUSHED")]
    assert send_mails(world.lab) == 0  # once

    PRODUCT.bad |= {world.commits[3]}
    world.tip(world.commits[3])
    held = world.run()
    box.mails.clear()
    send_mails(world.lab)
    title = f"[{NAME} test] {held.flight}: regressions - FAIL"
    assert sent_to(box) == [("devel@example.org", title), ("first@example.org", title)]
    sender, _, mail = box.mails[0]
    assert sender == "lab@example.org"
    assert mail["X-Osstest-Failures"].strip() == f"{NAME}:{JOB}:{TESTID}:fail:regression"
    body = mail.get_content()
    assert f"REGR. vs. {good.flight}" in body
    assert "Not pushing." in body
    assert "Ann <ann@example.org>" in body
    assert "xen" in body
    assert "source: change number 3" in body
    assert f"https://lab.example.org/flights/{held.flight}/report" in body

    world.run()  # it still fails: nobody but the list hears of it again
    box.mails.clear()
    send_mails(world.lab)
    assert [to for to, _ in sent_to(box)] == ["devel@example.org"]

    world.tip(world.commits[4])
    world.run()
    box.mails.clear()
    send_mails(world.lab)
    assert [to for to, _ in sent_to(box)] == ["devel@example.org", "fixed@example.org"]


@ONE
def test_a_server_that_does_not_take_it_is_asked_again_and_one_that_never_will_is_not(
    make_world: Callable[..., World],
    inbox: tuple[Inbox, int],
) -> None:
    box, port = inbox
    world = make_world()
    with_mail(world, free_port())  # nobody listens there
    world.run()
    assert send_mails(world.lab) == 0
    with world.lab.reads() as session:
        (waiting,) = mails.list_mails(session)
    assert (waiting.state, waiting.tries) == ("waiting", 1)
    assert "does not answer" in waiting.error
    with_mail(world, port)
    assert send_mails(world.lab) == 0  # not yet
    box.answer = "451 later"
    assert send_mails(later(world.lab, 70)) == 0
    box.answer = "250 OK"
    assert send_mails(later(world.lab, 600)) == 1
    assert len(box.mails) == 1
    box.answer = "554 never"
    world.tip(world.commits[3])
    world.run()
    assert send_mails(world.lab) == 0
    with world.lab.reads() as session:
        (failed,) = mails.list_mails(session, state="failed")
    assert "554 never" in failed.error
    assert send_mails(later(world.lab, 10**6)) == 0
    box.answer = "250 OK"
    with world.lab.sessions.begin() as session:
        mails.try_again(session, failed.id, world.lab.clock())
    assert send_mails(world.lab) == 1


@ONE
def test_a_long_line_and_a_rude_farewell_do_no_harm(
    make_world: Callable[..., World], inbox: tuple[Inbox, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    box, port = inbox
    world = make_world()
    with_mail(world, port)

    def rude(self: smtplib.SMTP) -> None:
        raise smtplib.SMTPServerDisconnected("gone without a word")

    monkeypatch.setattr(smtplib.SMTP, "quit", rude)
    text = mail_text(new_mail("long", "汉" * 2000 + "\nend\n", sender="lab@example.org", to="a@example.org"))
    assert max(len(line.encode()) for line in text.split("\n")) < 998
    with world.lab.sessions.begin() as session:
        mails.put_mail(session, key="k", recipient="a@example.org", subject="long", text=text, now=world.lab.clock())
    assert send_mails(world.lab) == 1
    assert send_mails(later(world.lab, 10**6)) == 0  # it was taken: it is not sent again
    assert box.mails[0][2].get_content().split() == ["汉" * 2000, "end"]


@ONE
def test_a_server_that_refuses_the_lab_is_asked_again_once_that_is_mended(
    make_world: Callable[..., World], inbox: tuple[Inbox, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = inbox
    world = make_world()
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    with_mail(world, port, user="lab", password_file=str(tmp_path / "password"))
    world.run()
    assert send_mails(world.lab) == 0

    def refused(self: smtplib.SMTP, *_: str) -> None:
        raise smtplib.SMTPAuthenticationError(535, b"wrong password")

    (tmp_path / "password").write_text("wrong")
    monkeypatch.setattr(smtplib.SMTP, "login", refused)
    assert send_mails(later(world.lab, 100)) == 0
    with world.lab.reads() as session:
        (waiting,) = mails.list_mails(session)
    assert (waiting.state, waiting.tries) == ("waiting", 2)
    assert "refuses the lab: 535 wrong password" in waiting.error
    with_mail(world, port)
    assert send_mails(later(world.lab, 10_000)) == 1


@ONE
def test_two_senders_do_not_send_the_same_mail(make_world: Callable[..., World], inbox: tuple[Inbox, int]) -> None:
    box, port = inbox
    world = make_world()
    with_mail(world, port)
    world.run()
    with world.lab.reads() as session:
        (mail,) = mails.due_mails(session, world.lab.clock())  # both have read it ...
    assert send_mails(world.lab) == 1  # ... one sends it ...
    with world.lab.sessions.begin() as session:  # ... and the other may not
        assert not mails.claim_mail(session, mail, until=world.lab.clock() + timedelta(minutes=1))
    assert len(box.mails) == 1


@ONE
def test_what_could_not_be_decided_is_told_once(
    make_world: Callable[..., World],
    inbox: tuple[Inbox, int],
) -> None:
    box, port = inbox
    world = make_world(ref="vanished")
    with_mail(world, port)
    for _ in range(3):
        assert world.run().state == "failed"
    send_mails(world.lab)
    assert sent_to(box) == [("devel@example.org", f"[{NAME} test] the gate could not decide")]
    assert "git cannot fetch it" in box.mails[0][2].get_content()


@ONE
def test_the_digest_comes_when_it_is_due(
    make_world: Callable[..., World],
    inbox: tuple[Inbox, int],
) -> None:
    box, port = inbox
    world = make_world()
    with_mail(world, port, digest="0 6 * * *")
    world.run()
    subscribe(world.lab, "boss@example.org", Wanted.DIGEST)
    send_mails(world.lab)
    box.mails.clear()
    assert write_digests(world.lab, now_if_due=False) == 1
    send_mails(world.lab)
    ((to, title),) = sent_to(box)
    assert to == "boss@example.org"
    assert title.startswith("[digest]")
    assert f"{NAME}: open, let through {world.commits[2][:12]}" in box.mails[0][2].get_content()
    assert send_mails(later(world.lab, 25 * 3600)) >= 1


@ONE
def test_a_flight_is_reported_as_its_gate_saw_it_and_another_one_unjudged(
    make_world: Callable[..., World],
) -> None:
    from bisection_lab import fly

    world = make_world()
    good = world.run()
    with world.lab.reads() as session:
        report = report_flight(session, world.lab, good.flight or 0)
        other = report_flight(session, world.lab, good.baseline_flight or 0)
    assert (report.outcome.value, report.push is not None and report.push.pushed) == ("perfect", True)
    assert report.versions_that == {"xen": world.commits[1]}
    assert report.standing.basis is not None
    assert report.standing.basis.flight == good.baseline_flight
    assert [log.tree for log in report.logs] == ["xen"]
    assert (other.outcome.value, other.push) == ("unjudged", None)
    assert fly(world.lab, world.commits[1])


@ONE
def test_the_log_of_a_long_range_is_not_read(tmp_path: Path, make_world: Callable[..., World]) -> None:
    world = make_world()
    trees = Trees(world.lab.settings.home)
    found = trees.changes("xen", world.commits[0], world.commits[5], most=300)
    assert found.people == ("Ann <ann@example.org>",)
    assert sum(line.startswith("commit ") for line in found.lines) == 5
    assert trees.changes("xen", world.commits[0], world.commits[5], most=5).lines == ()
    assert trees.changes("xen", world.commits[5], world.commits[5], most=5).people == ()


@ONE
def test_the_commands(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.cli import mail, main, render

    monkeypatch.setattr(mail, "open_lab", lambda *_: lab)

    def call(*words: str) -> tuple[int, str]:
        for console in (render.output, render.errors):
            console.cache_clear()
        done = CliRunner().invoke(main, list(words), env={"COLUMNS": "200"})
        return done.exit_code, done.output

    assert call("subscription", "add", "ann@example.org", "--kind", "fixed", "--branch", "xen-*")[0] == 0
    assert json.loads(call("subscription", "list", "--json")[1]) == [
        {"subscription": 1, "address": "ann@example.org", "kind": "fixed", "branch": "xen-*", "job": "*"}
    ]
    for words in (
        ("add", "no address"),
        ("add", "a@b\nBcc: c@d"),
        ("add", "a@b", "--job", "a b"),
        ("add", "-x@b"),
        ("remove", "9"),
        ("add", "a@b", "--kind", "sometimes"),
    ):
        assert call("subscription", *words)[0] == 2, words
    assert call("subscription", "remove", "1")[0] == 0
    assert "No mail" in call("mail", "list")[1]
    assert call("mail", "send")[0] == 2
    assert call("mail", "test", "ann@example.org")[0] == 2
    assert call("mail", "retry", "3")[0] == 2
    assert call("mail", "retry", "9" * 20)[0] == 2
