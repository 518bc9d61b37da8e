"""Gate: begin a run of a branch's push gate, by a person or by its schedule; a person's say about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import board, flights, gates
from lab.db import session as db
from lab.errors import ConfigError, NotFoundError
from lab.flights.board import GateRun
from lab.flights.builds import RECIPE, BuildRequest
from lab.flights.coverage import unmet
from lab.flights.gate import Explanation, GateStep, explain, waived, with_waivers
from lab.flights.matrix import flight_specs
from lab.flights.matrix.table import FULL
from lab.flights.model import JobSpec
from lab.flights.trial import trial_specs
from lab.flights.verdict import verdict_of
from lab.labfile import BranchSettings
from lab.services.cron import is_due
from lab.vcs import Trees

LONGEST_OVERRIDE: Final = timedelta(days=366)


def branch_of(lab: Lab, name: str) -> BranchSettings:
    """The branch of that name; `NotFoundError` when the lab's file has none."""
    if name in lab.branches:
        return lab.branches[name]
    known = ", ".join(lab.branches) or "none"
    raise NotFoundError(
        f"no branch {name!r} has a gate", hint=f"branches of the lab's file: {known}; add [branch.{name}]"
    )


def gate_specs(lab: Lab, branch: BranchSettings, commit: str) -> tuple[JobSpec, ...]:
    """The jobs that test a commit of a branch: its build, and the jobs of the matrix on what it gives.

    `ConfigError` or `NotFoundError` when the commit is no Xen, or the matrix has no such jobs.
    """
    request = BuildRequest(tree=branch.tree, revision=commit, arch="amd64", config=branch.config)
    specs = trial_specs(flight_specs(FULL), branch.jobs, request, lab.builds.version_of(request))
    return tuple(replace(spec, runvars=MappingProxyType(_runvars(spec, branch))) for spec in specs)


def _runvars(spec: JobSpec, branch: BranchSettings) -> dict[str, str]:
    if spec.recipe == RECIPE:
        tools = {} if branch.xen_tools == "built" else {"xen_tools": branch.xen_tools}
        return {**spec.runvars, **tools}
    return {**spec.runvars, **branch.runvars}


def begin_gate(session: Session, lab: Lab, branch: str, *, actor: str, only_baseline: bool = False) -> int:
    """Begin a run of a branch's gate and return its number; that of the one that is under way, if there is one.

    The leader does the rest (`services/gate_step.py`).
    """
    branch_of(lab, branch)
    number = gates.add_run(
        session, branch, verdict={"actor": actor, "only_baseline": only_baseline, "retests": []}, now=lab.clock()
    )
    if number is None:
        return next(iter(gates.open_runs(session, branch)), gates.newest_run(session, branch) or 0)
    db.after_commit(session, lab.bell.ring)
    return number


def decide_again(session: Session, lab: Lab, branch: str, *, actor: str) -> int:
    """Have the gate decide anew about what it tested last, with what people have decided since; tests nothing again.

    Returns the number of the run. `ConfigError` when nothing was tested, or a run is under way.
    """
    branch_of(lab, branch)
    if under_way := gates.open_runs(session, branch):
        raise ConfigError(f"run {under_way[0]} of the gate is under way", hint="it decides when its flight has ended")
    last = last_decided(session, branch)
    if last is None or last.flight is None or last.pushed:
        raise ConfigError(f"there is nothing that the gate of {branch} holds", hint=f"lab gate run {branch}")
    number = gates.add_run(
        session, branch, now=lab.clock(),
        verdict={"actor": actor, "only_baseline": False, "retests": last.verdict.get("retests", []), "again": last.id},
    )  # fmt: skip
    if number is None:
        raise ConfigError("a run of the gate has just begun", hint="it decides when its flight has ended")
    run = board.load_run(session, number)
    values = {"old": last.old, "new": last.new, "flight": last.flight, "baseline_flight": last.baseline_flight}
    gates.move_run(session, run, GateStep.RETESTING, now=lab.clock(), values=values)
    db.after_commit(session, lab.bell.ring)
    return number


def last_decided(session: Session, branch: str) -> GateRun | None:
    """The last run of a branch's gate that judged a flight, with its verdict."""
    last = board.last_runs(session, [branch]).get(branch)
    return last.decided if last else None


def begin_due_gates(lab: Lab) -> list[int]:
    """Begin a run of every gate whose schedule says that it is time; returns their numbers.

    A moment that was missed (the lab was down) is made up for, once.
    """
    begun = []
    for name, branch in lab.branches.items():
        if not branch.schedule:
            continue
        with lab.sessions.begin() as session:
            if gates.open_runs(session, name) or not is_due(
                branch.schedule, gates.last_begun(session, name), lab.clock()
            ):
                continue
            begun.append(begin_gate(session, lab, name, actor="schedule"))
    return begun


def explain_gate(session: Session, lab: Lab, branch: str) -> tuple[GateRun, Explanation]:
    """What keeps a branch's gate shut as things stand, and what waiving would open it.

    `ConfigError` when it has decided about nothing yet.
    """
    branch_of(lab, branch)
    run = last_decided(session, branch)
    if run is None or run.flight is None:
        raise ConfigError(f"the gate of {branch} has decided nothing yet", hint=f"lab gate run {branch}")
    overrides = gates.overrides_in_force(session, branch, lab.clock())
    verdict = with_waivers(verdict_of(run.verdict), waived(overrides, run.new))
    missing = unmet(flights.load_flight(session, run.flight, evidence=False), lab.coverage)
    return run, explain(verdict, missing, overrides, run.new)


def override(
    session: Session,
    lab: Lab,
    branch: str,
    kind: str,
    *,
    actor: str,
    reason: str,
    expires: datetime | None,
    job: str = "",
    testid: str = "",
    revision: str = "",
) -> int:
    """Keep what a person decided about a gate: who, why, until when; returns its number.

    `hold`: nothing is pushed while it is in force. `waive`: a test of a job does not block, at a revision or at any.
    `force`: a revision passes whatever the tests say. Raises `ConfigError` when something is missing or wrong.
    """
    settings = branch_of(lab, branch)
    for name, text, longest in (
        ("reason", reason, 2000),
        ("actor", actor, 128),
        ("job", job, 128),
        ("testid", testid, 128),
    ):
        if len(text) > longest or not text.isprintable():
            raise ConfigError(f"the {name} is not printable text of at most {longest} characters")
    if not reason.strip() or not actor.strip():
        raise ConfigError("who and why are missing", hint="say why: --reason '...'")
    now = lab.clock()
    if expires is not None and not now < expires <= now + LONGEST_OVERRIDE:
        raise ConfigError("it must end in the future, within a year", hint="e.g. --for 2d")
    if kind == "waive" and not (job and testid):
        raise ConfigError("a waiver is for one test of one job", hint="lab gate explain BRANCH lists those that block")
    if kind == "force" and not revision:
        raise ConfigError("a revision is missing", hint="name the commit to let through")
    if revision:
        revision = Trees(lab.settings.home).resolve(settings.tree, revision)
    if kind == "waive" and not revision and expires is None:
        raise ConfigError("a waiver ends: with a time or with a revision", hint="--for 7d, or --revision REV")
    number = gates.add_override(
        session, branch, kind, actor=actor, reason=reason, now=now, expires=expires, job=job, testid=testid,
        revision=revision,
    )  # fmt: skip
    db.after_commit(session, lab.bell.ring)
    return number
