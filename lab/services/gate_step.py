"""One step of a run of a gate: fetch, have the baseline tested, test, retest, decide, push.

All it knows is in the database, and whatever it begins (a flight, the next state) is one transaction: kill it at any
moment, and the next one goes on. The push is idempotent: a ref that is already there was moved by us.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import board, flights, gates, judging
from lab.db import session as db
from lab.db.judging import Versions
from lab.errors import ConfigError, LabError
from lab.flights.board import GateRun
from lab.flights.coverage import unmet
from lab.flights.gate import ADVANCE, GateStep, decide, waived
from lab.flights.judged_by import JudgedBy
from lab.flights.plain_text import clean
from lab.flights.retest import plan_retests
from lab.flights.status import Blessing
from lab.flights.verdict import Kind, Verdict
from lab.labfile import BranchSettings
from lab.services.bisect import start_bisection
from lab.services.construct import construct_flight
from lab.services.gate import begin_due_gates, branch_of, gate_specs
from lab.services.judge import judge_flight
from lab.services.regression_life import record_verdict
from lab.services.report import send_gate_report
from lab.services.retest import start_retests
from lab.vcs import Trees

log = logging.getLogger(__name__)

MOST_BISECTIONS = 3
"""A run of a gate begins so many searches at most: one commit often breaks several tests."""


def step_gates(lab: Lab) -> int:
    """Begin the runs that are due, and take every run on that can go on; returns how many did.

    One that cannot does not hold up the others: it ends, says why, and has pushed nothing.
    """
    begin_due_gates(lab)
    with lab.reads() as session:
        running = gates.open_runs(session)
    count = 0
    for number in running:
        try:
            while step_gate(lab, number):
                count += 1
        except LabError as error:
            log.warning("gate run %s: %s", number, error)
            fail_run(lab, number, error.message + (f" ({error.hint})" if error.hint else ""))
        except Exception:
            log.exception("gate run %s: trying again", number)
    return count


def step_gate(lab: Lab, number: int) -> bool:
    """Take a run on; False when it waits for a flight, has ended, or somebody else was quicker."""
    with lab.reads() as session:
        run = board.load_run(session, number)
        waits = run.finished is not None or _waits(session, run)
    if waits:
        return False
    branch = branch_of(lab, run.branch)
    match GateStep(run.state):
        case GateStep.FETCHING:
            return _fetch(lab, run, branch)
        case GateStep.BASELINE:
            return _after_baseline(lab, run, branch)
        case GateStep.TESTING | GateStep.RETESTING:
            return _judge(lab, run, branch)
        case GateStep.PUSHING:
            return _push(lab, run, branch)
        case _:
            return False


def fail_run(lab: Lab, number: int, reason: str) -> None:
    """End a run that cannot go on; nothing is pushed."""
    with lab.sessions.begin() as session:
        run = board.load_run(session, number)
        values = {"decision": "", "reason": clean(reason)[:2000]}
        if gates.move_run(session, run, GateStep.FAILED, now=lab.clock(), values=values):
            send_gate_report(session, lab, number)


def _waits(session: Session, run: GateRun) -> bool:
    """Whether a flight of the present state has not ended."""
    match GateStep(run.state):
        case GateStep.BASELINE:
            of = [run.baseline_flight]
        case GateStep.TESTING:
            of = [run.flight]
        case GateStep.RETESTING:
            of = list(run.verdict.get("retests", []))
        case _:
            of = []
    return any(flights.summarise_flight(session, one).finished is None for one in of if one is not None)


def _fetch(lab: Lab, run: GateRun, branch: BranchSettings) -> bool:
    trees = Trees(lab.settings.home)
    if trees.remote_ref(branch.push_url, branch.push_ref) is None:
        raise ConfigError(
            f"{branch.push_ref} is not there yet: nothing of {run.branch} was ever let through",
            hint="push a revision that you trust to it by hand; it is what the first tip is compared with",
        )
    new = trees.fetch_ref(branch.tree, branch.url, branch.ref, keep=f"{run.branch}/tip")
    old = trees.fetch_ref(branch.tree, branch.push_url, branch.push_ref, keep=f"{run.branch}/tested")
    values: dict[str, Any] = {"old": old, "new": new}
    only_baseline = bool(run.verdict.get("only_baseline"))
    if old == new and not branch.always and not only_baseline:
        return _end(lab, run, {**values, "decision": ADVANCE, "reason": "up to date: the tip is what was let through"})
    if not (branch.rewinds or trees.descends(branch.tree, new, old)):
        raise ConfigError(
            f"the tip {new[:12]} does not contain {old[:12]}, to which {branch.push_ref} points: not a fast-forward",
            hint="let the branch contain it again, or set rewinds = true",
        )
    with lab.sessions.begin() as session:
        tested = judging.flights_testing(session, run.branch, {branch.tree: old})
        if not tested:
            flight = _fly(session, lab, run, branch, old, "baseline: the revision that was let through last")
            to, values["baseline_flight"] = GateStep.BASELINE, flight
        elif only_baseline:
            values |= {"decision": ADVANCE, "reason": f"the baseline was tested in flight {tested[0]}"}
            values["baseline_flight"] = tested[0]
            to = GateStep.DONE
        else:
            values["baseline_flight"] = tested[0]
            values["flight"] = _fly(session, lab, run, branch, new, f"tip of {branch.ref}")
            to = GateStep.TESTING
        return _move(session, lab, run, to, values)


def _after_baseline(lab: Lab, run: GateRun, branch: BranchSettings) -> bool:
    with lab.sessions.begin() as session:
        if not judging.flights_testing(session, run.branch, {branch.tree: run.old}):
            raise ConfigError(
                f"the baseline's flight {run.baseline_flight} did not end as one that counts",
                hint=f"was it aborted? `lab gate run {run.branch}` tests the baseline again",
            )
        if run.verdict.get("only_baseline"):
            reason = f"the baseline was tested in flight {run.baseline_flight}"
            return _move(session, lab, run, GateStep.DONE, {"decision": ADVANCE, "reason": reason})
        flight = _fly(session, lab, run, branch, run.new, f"tip of {branch.ref}")
        return _move(session, lab, run, GateStep.TESTING, {"flight": flight})


def _fly(session: Session, lab: Lab, run: GateRun, branch: BranchSettings, commit: str, note: str) -> int:
    return construct_flight(
        session, lab, gate_specs(lab, branch, commit), branch=run.branch, intended=Blessing.REAL,
        submitter="gate", tenant=branch.tenant or run.branch, note=f"gate run {run.id}, {note}",
        priority=branch.priority,
    )  # fmt: skip


def _judge(lab: Lab, run: GateRun, branch: BranchSettings) -> bool:
    """The flight and its retests have ended: have more retests, or decide."""
    retests = list(run.verdict.get("retests", []))
    with lab.sessions.begin() as session:
        flight = flights.load_flight(session, run.flight or 0, evidence=False)
        if flight.blessing is not Blessing.REAL:
            raise ConfigError(
                f"flight {flight.id} ended as {flight.blessing.value}: it says nothing",
                hint=f"was it aborted? `lab gate run {run.branch}` tests the tip again",
            )
        overrides = gates.overrides_in_force(session, run.branch, lab.clock())
        verdict = judge_flight(
            session, flight.id, this={branch.tree: run.new}, that={branch.tree: run.old}, policy=judged_by(branch),
            waived=waived(overrides, run.new), refer_to=retests,
        )  # fmt: skip
        if branch.retest and not retests and run.state == GateStep.TESTING.value:
            builds = {job.name: not job.values.get("xenbuildjob") and job.recipe == "build-xen" for job in flight.jobs}
            if planned := plan_retests(verdict, builds, times=branch.retest):
                begun = start_retests(session, lab, flight.id, planned, priority=branch.priority)
                told = {**run.verdict, **verdict.as_json(), "retests": begun}
                return _move(session, lab, run, GateStep.RETESTING, {"verdict": told})
        decision = decide(verdict, unmet(flight, lab.coverage), overrides, run.new)
        told = {**run.verdict, **verdict.as_json()}
        values: dict[str, Any] = {"verdict": told, "decision": decision.word, "reason": decision.reason[:2000]}
        versions = Versions(this={branch.tree: run.new}, that={branch.tree: run.old})
        record_verdict(session, lab, run.branch, versions, verdict)
        if not decision.advance:
            _search_culprits(session, lab, run, branch, verdict)
            return _move(session, lab, run, GateStep.DONE, values)
        return _move(session, lab, run, GateStep.PUSHING, values)


def judged_by(branch: BranchSettings) -> JudgedBy:
    """By which rules a branch is judged."""
    by = branch.rules.judged_by()
    return JudgedBy(policy=by.policy, allow=by.allow, evidence=by.evidence, needs_passes=branch.retest_passes)


def _search_culprits(session: Session, lab: Lab, run: GateRun, branch: BranchSettings, verdict: Verdict) -> None:
    """Begin a bisection for what is new; one that cannot be searched (nothing to compare) is said in the log."""
    if not branch.bisect or run.old == run.new:
        return
    for one in [one for one in verdict.blockers if one.kind is Kind.REGRESSION and one.ref_flight][:MOST_BISECTIONS]:
        try:
            with session.begin_nested():
                start_bisection(
                    session, lab, job=one.job, testid=one.testid, failing_flight=one.seen_in or verdict.flight,
                    basis_flight=one.ref_flight or 0, actor="gate",
                )  # fmt: skip
        except LabError as error:
            log.warning("gate run %s: %s %s is not bisected: %s", run.id, one.job, one.testid, error)


def _push(lab: Lab, run: GateRun, branch: BranchSettings) -> bool:
    with lab.reads() as session:
        holds = [one for one in gates.overrides_in_force(session, run.branch, lab.clock()) if one.kind == "hold"]
    if holds:  # somebody was quicker than the push
        values = {"decision": "hold", "reason": clean(f"held by {holds[0]}")[:2000]}
        return _end(lab, run, values)
    if run.old != run.new:
        trees = Trees(lab.settings.home)
        trees.push(branch.tree, run.new, branch.push_url, branch.push_ref, expected=run.old)
    return _end(lab, run, {"pushed": True})


def _end(lab: Lab, run: GateRun, values: dict[str, Any]) -> bool:
    with lab.sessions.begin() as session:
        return _move(session, lab, run, GateStep.DONE, values)


def _move(session: Session, lab: Lab, run: GateRun, to: GateStep, values: dict[str, Any]) -> bool:
    """The next state, in the transaction of whatever was begun for it; undone with it if somebody was quicker."""
    if not gates.move_run(session, run, to, now=lab.clock(), values=values):
        session.rollback()
        return False
    if to.final:
        send_gate_report(session, lab, run.id)
    db.after_commit(session, lab.bell.ring)
    return True
