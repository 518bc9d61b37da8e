"""Report: what a flight's report says, and to whom it goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import bisections, board, flights, gates, judging, mails
from lab.errors import LabError
from lab.flights.bisection_mail import bisection_mail
from lab.flights.board import GateRun
from lab.flights.gate import ADVANCE, GateStep
from lab.flights.model import Flight
from lab.flights.past_results import JobRun, Signature
from lab.flights.report import Push, Report, TreeLog, subject
from lab.flights.report_mail import mail_text, new_mail, report_mail
from lab.flights.report_text import MOST_LINES
from lab.flights.standing import PastFlight, standing
from lab.flights.verdict import JOB_STATUS, Finding, Kind, Outcome, Verdict, verdict_of
from lab.vcs import Trees


def report_flight(session: Session, lab: Lab, flight: int) -> Report:
    """The report of a flight: as the gate that judged it saw it; of another one nobody has compared it with anything.

    `NotFoundError` when there is no such flight.
    """
    whole = flights.load_flight(session, flight, evidence=False)
    number = board.run_of_flight(session, flight)
    if number is not None:
        run = board.load_run(session, number)
        if "findings" in run.verdict and run.branch in lab.branches:
            return report_gate(session, lab, run, whole)
    this = judging.revisions_of(session, flight)
    return _report(
        session, lab, whole, this=this, that={}, failures=_unjudged(session, flight), outcome=Outcome.UNJUDGED
    )


def report_gate(session: Session, lab: Lab, run: GateRun, whole: Flight | None = None) -> Report:
    """The report of a run of a gate that has judged a flight."""
    whole = whole or flights.load_flight(session, run.flight or 0, evidence=False)
    tree = lab.branches[run.branch].tree
    verdict = verdict_of(run.verdict)
    return _report(
        session, lab, whole, this={tree: run.new}, that={tree: run.old}, failures=verdict.findings,
        outcome=verdict.outcome, push=_push(run, verdict),
    )  # fmt: skip


def _push(run: GateRun, verdict: Verdict) -> Push:
    said = [f"{run.old} -> {run.new}"] if run.pushed and run.old != run.new else []
    if not run.pushed or (run.decision == ADVANCE and run.reason != verdict.headline):
        said.append(run.reason)
    return Push(pushed=run.pushed, said=tuple(one for one in said if one))


def _report(
    session: Session,
    lab: Lab,
    flight: Flight,
    *,
    this: Mapping[str, str],
    that: Mapping[str, str],
    failures: tuple[Finding, ...],
    outcome: Outcome,
    push: Push | None = None,
) -> Report:
    past = [
        PastFlight(flight=number, started=started, revisions=revisions)
        for number, started, revisions in judging.flights_before(session, flight.branch, flight.id)
    ]
    now = flight.finished or lab.clock()
    own = PastFlight(flight=flight.id, started=flight.started, revisions=this)
    people, logs = _changes(lab, this, that)
    return Report(
        flight=flight.id, branch=flight.branch, intended=flight.intended.value, blessing=flight.blessing.value,
        outcome=outcome, at=now, jobs=tuple((job.name, job.status.value) for job in flight.jobs), failures=failures,
        versions_this=this, versions_that=that, standing=standing(own, past, baseline=that, now=now), people=people,
        logs=logs, push=push, baseline=bool(that) and dict(this) == dict(that), url=lab.mail.url.rstrip("/"),
    )  # fmt: skip


def _changes(lab: Lab, this: Mapping[str, str], that: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[TreeLog, ...]]:
    trees, people, logs = Trees(lab.settings.home), set[str](), []
    for tree, new in sorted(this.items()):
        if not that.get(tree) or that[tree] == new:
            continue
        try:
            found = trees.changes(tree, that[tree], new, most=MOST_LINES)
        except LabError:
            continue  # the tree is gone: the report is worth having all the same
        people |= set(found.people)
        logs.append(TreeLog(tree=tree, lines=found.lines, length=found.length))
    return tuple(sorted(people, key=str.lower)), tuple(logs)


def _unjudged(session: Session, flight: int) -> tuple[Finding, ...]:
    run = judging.load_run(session, flight)
    found = []
    for job in run.jobs:
        if job.status == "broken" or (job.status != "pass" and not job.bad):
            found.append(_plain(job, JOB_STATUS, job.status, None))
        found += [_plain(job, step.testid, step.status, step.stepno) for step in job.bad]
    return tuple(found)


def _plain(job: JobRun, testid: str, status: str, stepno: int | None) -> Finding:
    return Finding(job=job.name, testid=testid, stepno=stepno, status=status, kind=Kind.NA, blocks=False, note="")


def send_gate_report(session: Session, lab: Lab, number: int) -> None:
    """Have everybody told who wants to know how a run of a gate ended; nothing if nobody does, or no server is named.

    The mails are kept in the caller's transaction, and sent afterwards (`services/send_mails.py`).
    """
    run = board.load_run(session, number)
    if not lab.mail.server:
        return
    if run.state == GateStep.FAILED.value or "findings" not in run.verdict:
        if run.state == GateStep.FAILED.value:
            _tell_failed(session, lab, run)
        return
    report = report_gate(session, lab, run)
    now_blocking = {one.signature for one in report.failures if one.blocks}
    before = _blocking_before(session, run)
    for recipient in _recipients(session, lab, run.branch, now_blocking, before):
        mail = report_mail(report, sender=lab.mail.sender, to=recipient)
        mails.put_mail(
            session, key=f"gate {run.id}", recipient=recipient, subject=subject(report)[:500], text=mail_text(mail),
            now=lab.clock(),
        )  # fmt: skip


def _tell_failed(session: Session, lab: Lab, run: GateRun) -> None:
    """Of a run that could not decide the lab's own people hear, once until the reason changes."""
    before = gates.run_before(session, run.branch, run.id)
    if before is not None and (before.state, before.reason) == (run.state, run.reason):
        return
    title = f"[{run.branch} test] the gate could not decide"
    body = f"branch {run.branch}\ngate run {run.id}\n\n{run.reason}\n\nNothing was pushed.\n"
    for recipient in lab.mail.to:
        _put(session, lab, f"gate {run.id}", title, body, recipient)


def _put(session: Session, lab: Lab, key: str, title: str, body: str, recipient: str) -> None:
    mail = new_mail(title, body, sender=lab.mail.sender, to=recipient)
    mails.put_mail(session, key=key, recipient=recipient, subject=title[:500], text=mail_text(mail), now=lab.clock())


def _blocking_before(session: Session, run: GateRun) -> set[Signature]:
    before = gates.decided_before(session, run.branch, run.id)
    if before is None or "findings" not in before.verdict:
        return set()
    return {one.signature for one in verdict_of(before.verdict).blockers}


def _recipients(
    session: Session, lab: Lab, branch: str, now: Collection[Signature], before: Collection[Signature]
) -> list[str]:
    wanting = [one.address for one in mails.subscriptions(session) if one.concerns(branch, now, before)]
    return list(dict.fromkeys([*lab.mail.to, *wanting]))


def send_bisection_report(session: Session, lab: Lab, number: int) -> None:
    """Have people told how a bisection ended: the lab's own, and who wants every report of the branch."""
    if not lab.mail.server:
        return
    bisection = bisections.load_bisection(session, number)
    told = bisection_mail(bisection, url=lab.mail.url)
    for recipient in _recipients(session, lab, bisection.branch, [], []):
        _put(session, lab, f"bisection {number}", told.subject, told.body, recipient)
