"""The branches with a gate: whether their trees can be read, their outputs are there, and mails can go out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from lab.context import Lab
from lab.db import mails
from lab.doctor.finding import Finding, error, ok, warning
from lab.errors import LabError
from lab.vcs import Trees

CONNECT_S = 5.0


def check_branches(lab: Lab) -> Iterator[Finding]:
    """Of each branch: its tip can be read, and there is something that was let through."""
    trees = Trees(lab.settings.home)
    if not lab.branches:
        yield ok("branches", "none has a gate")
    for name, branch in lab.branches.items():
        try:
            if trees.remote_ref(branch.url, branch.ref) is None:
                yield error(name, f"{branch.url} has no {branch.ref}", "correct ref of the branch in the lab's file")
                continue
            if trees.remote_ref(branch.push_url, branch.push_ref) is None:
                yield warning(name, f"{branch.push_ref} is not there yet", "push a revision that you trust to it")
                continue
        except LabError as problem:
            yield error(name, problem.message, problem.hint or "correct the branch in the lab's file")
            continue
        yield ok(name, "tip and output can be read" + (f", {branch.schedule}" if branch.schedule else ", by hand"))


def check_mail(lab: Lab) -> Iterator[Finding]:
    """The mail server answers, and no mail was given up."""
    if not lab.mail.server:
        yield ok("mail", "no server is named: nothing is sent")
        return
    try:
        with socket.create_connection((lab.mail.server, lab.mail.port), timeout=CONNECT_S):
            yield ok("mail", f"{lab.mail.server}:{lab.mail.port} answers")
    except OSError as problem:
        yield error(
            "mail", f"{lab.mail.server}:{lab.mail.port} does not answer: {problem}", "see [mail] of the lab's file"
        )
    with lab.reads() as session:
        failed = mails.list_mails(session, state=mails.FAILED, limit=1000)
    if failed:
        yield warning(
            "mail", f"{len(failed)} were given up, the last: {failed[0].error}", "lab mail list --state failed"
        )
