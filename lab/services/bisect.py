"""Bisect: start a bisection from what passed and what fails, and stop one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import bisections, flights, hosts, regressions
from lab.db import session as db
from lab.errors import ConfigError, NotFoundError
from lab.flights.bisection import Policy
from lab.flights.bisection_runs import (
    KNOWN,
    Bisection,
    BisectionState,
    Hosts,
    MovingTree,
    ProbeRun,
    Result,
    Template,
    build_jobs,
    compared,
    make_template,
    on_hosts,
    result_of,
)
from lab.flights.builds import RECIPE
from lab.flights.model import Job, JobSpec
from lab.flights.recipe import find_recipe
from lab.flights.regression_life import Life
from lab.flights.revision_graph import History, Node, history_of, make_graph
from lab.services.construct import check_job
from lab.services.settle import abort_flight
from lab.vcs import Trees

MOST_COMMITS: Final = 20_000
"""Between a pass and a failure, of one tree."""


def default_policy(lab: Lab) -> Policy:
    """How the lab's file says that bisections are made."""
    given = lab.bisection
    return Policy(confidence=given.confidence, alternations=given.alternations, at_once=given.at_once)


def start_bisection(
    session: Session,
    lab: Lab,
    *,
    job: str,
    testid: str,
    failing_flight: int,
    basis_flight: int,
    actor: str,
    policy: Policy | None = None,
    hosts_like: Hosts | None = None,
    revert: bool | None = None,
    again: bool = False,
) -> int:
    """Search the commit with which the step `testid` of a job began to fail; returns the bisection's number.

    It passed in `basis_flight` and fails in `failing_flight`. If the same is searched already, or was (unless `again`),
    that bisection's number is returned. What is not said (policy, hosts, revert) is as in the lab's file. Raises
    `ConfigError` when the two flights do not say so, cannot be compared, or differ in no revision. The leader does the
    rest (`services/bisect_step.py`).
    """
    failing, passing = (flights.load_job(session, flight, job) for flight in (failing_flight, basis_flight))
    for one, wanted in ((failing, Result.FAIL), (passing, Result.PASS)):
        result = result_of(one, testid)
        if result is None or result[0] is not wanted:
            what = "has not ended" if result is None else f"says {result[0].value} of it"
            raise ConfigError(
                f"{testid} did not {wanted.value} in {one.id}: the job {what}", hint="name other flights, or other ends"
            )
    hosts_like = hosts_like or Hosts(lab.bisection.hosts)
    template = make_template(failing, _builds(session, failing), passing, _builds(session, passing))
    flags = {view.host.name: view.host.flags for view in hosts.list_hosts(session)}
    used = failing.last.hosts if failing.last else {}
    specs = on_hosts(template.specs, job, used, flags, hosts_like)
    branch = flights.load_flight(session, failing_flight).branch
    bisection = Bisection(
        id=0,
        branch=branch,
        job=job,
        testid=testid,
        state=BisectionState.RUNNING,
        template=specs,
        trees=template.trees,
        histories=_histories(lab, template),
        policy=policy or default_policy(lab),
        hosts=hosts_like,
        revert=lab.bisection.revert if revert is None else revert,
        basis_flight=basis_flight,
        failing_flight=failing_flight,
        actor=actor,
        probes=(
            _original(1, "basis", passing, template.basis, Result.PASS),
            _original(2, "failure", failing, template.failure, Result.FAIL),
        ),
    )
    if (other := _same(session, bisection, again=again)) is not None:
        return other
    known = [*bisection.probes, *_known(session, bisection, used if hosts_like is Hosts.SAME else {})]
    return _begin(session, lab, bisection, known)


def start_bisection_between(
    session: Session,
    lab: Lab,
    specs: Sequence[JobSpec],
    *,
    job: str,
    testid: str,
    tree: str,
    good: str,
    bad: str,
    branch: str,
    actor: str,
    policy: Policy | None = None,
    revert: bool | None = None,
    again: bool = False,
) -> int:
    """Search between two revisions of a tree that no flight has tested: `specs` are the job and its builds at `bad`.

    As `start_bisection`, but whether they pass and fail has yet to be seen.
    """
    trees = Trees(lab.settings.home)
    basis, failure = trees.resolve(tree, good), trees.resolve(tree, bad)
    builds = [
        spec.name for spec in specs if spec.recipe == RECIPE and spec.runvars.get("tree", "xen") == tree
    ]  # fmt: skip
    if not builds:
        raise ConfigError(f"{job} needs no build of the tree {tree}", hint="only what is built from source can differ")
    if basis == failure:
        raise ConfigError(f"{good} and {bad} are the same commit", hint="there is nothing to bisect")
    template = Template(
        specs=tuple(specs),
        trees=(MovingTree(name=tree, repository=tree, builds=tuple(builds)),),
        basis=(basis,),
        failure=(failure,),
    )
    bisection = Bisection(
        id=0,
        branch=branch,
        job=job,
        testid=testid,
        state=BisectionState.RUNNING,
        template=template.specs,
        trees=template.trees,
        histories=_histories(lab, template),
        policy=policy or default_policy(lab),
        revert=lab.bisection.revert if revert is None else revert,
        actor=actor,
    )
    if (other := _same(session, bisection, again=again)) is not None:
        return other
    return _begin(session, lab, bisection, [])


def find_basis(session: Session, *, job: str, testid: str, flight: int) -> int:
    """The branch's newest flight before `flight` that counts and in which the step passed; `NotFoundError` if none."""
    branch = flights.load_flight(session, flight).branch
    for other in reversed(bisections.earlier_runs(session, branch=branch, job=job, since=1, before=flight)):
        result = result_of(flights.load_job(session, other, job), testid)
        if result is not None and result[0] is Result.PASS:
            return other
    raise NotFoundError(
        f"no earlier flight of the branch {branch} passed {testid} of {job}", hint="name one of another with --basis"
    )


def stop_bisection(session: Session, lab: Lab, number: int, *, reason: str) -> bool:
    """Stop a bisection and abort the flights it has running; False when it had ended."""
    bisection = bisections.load_bisection(session, number)
    now = lab.clock()
    if not bisections.end_bisection(session, number, BisectionState.STOPPED, reason, now=now):
        return False
    abort_running(session, lab, bisection, reason)
    _not_searched(session, lab, bisection, "was stopped")
    return True


def fail_bisection(session: Session, lab: Lab, number: int, *, reason: str) -> None:
    """End a bisection that cannot go on."""
    bisection = bisections.load_bisection(session, number)
    if bisections.end_bisection(session, number, BisectionState.FAILED, reason[:500], now=lab.clock()):
        abort_running(session, lab, bisection, "it failed")
        _not_searched(session, lab, bisection, "could not go on")


def _not_searched(session: Session, lab: Lab, bisection: Bisection, what: str) -> None:
    """The regression whose commit was searched is as it was before."""
    regressions.bisection_moves(
        session, bisection.branch, (bisection.job, bisection.testid), Life.CONFIRMED, now=lab.clock(),
        bisection=bisection.id, reason=f"bisection {bisection.id} {what}",
    )  # fmt: skip


def abort_running(session: Session, lab: Lab, bisection: Bisection, reason: str) -> None:
    """Abort the flights of probes that are not needed any more."""
    for probe in bisection.running:
        if probe.own and probe.flight is not None:
            abort_flight(session, lab, probe.flight, reason=f"bisection {bisection.id}: {reason}")


def _builds(session: Session, job: Job) -> Mapping[str, Job]:
    keys = build_jobs(job)
    found = flights.load_jobs(session, keys.values())
    if missing := [f"{flight}.{name}" for flight, name in keys.values() if (flight, name) not in found]:
        raise ConfigError(f"{job.id} names the build {missing[0]}, which does not exist")
    return {prefix: found[key] for prefix, key in keys.items()}


def _histories(lab: Lab, template: Template) -> tuple[History, ...]:
    trees = Trees(lab.settings.home)
    return tuple(
        history_of(tree.name, basis, failure, trees.history(tree.repository, basis, failure, most=MOST_COMMITS))
        for tree, basis, failure in zip(template.trees, template.basis, template.failure, strict=True)
    )


def _original(number: int, purpose: str, job: Job, node: Node, result: Result) -> ProbeRun:
    last = job.last
    return ProbeRun(
        number=number,
        flight=job.flight,
        node=node,
        purpose=purpose,
        result=result,
        started=last.started if last else None,
        finished=last.finished if last else None,
    )


def _same(session: Session, wanted: Bisection, *, again: bool) -> int | None:
    """A bisection of the same that runs; or, unless `again`, one that has answered this already."""
    end = {(one.tree, one.failure) for one in wanted.histories}
    for other in bisections.bisections_of(session, branch=wanted.branch, job=wanted.job, testid=wanted.testid):
        if not other.state.final:
            return other.id
        if again or other.state in (BisectionState.STOPPED, BisectionState.FAILED):
            continue
        same_end = {(one.tree, one.failure) for one in other.histories} == end
        if same_end or (other.state is BisectionState.FOUND and _explains(other, wanted)):
            return other.id
    return None


def _explains(found: Bisection, wanted: Bisection) -> bool:
    """Whether what was found is in the other range, too, and nothing there says that it reverts it."""
    within = {(one.tree, commit.id): commit for one in wanted.histories for commit in one.commits}
    named = [(one["tree"], one["commit"]) for one in found.conclusion.get("suspects", ())]
    if not named or not within.keys() >= set(named):
        return False
    reverts = {f'Revert "{within[key].subject}"' for key in named}
    return not any(commit.subject in reverts for commit in within.values())


def _known(session: Session, bisection: Bisection, used: Mapping[str, str]) -> list[ProbeRun]:
    """What flights of the branch have shown before, of the same test between the same ends (`used`: on these hosts)."""
    graph = make_graph(bisection.histories)
    originals = {bisection.basis_flight, bisection.failing_flight}
    found: list[ProbeRun] = []
    since = min(bisection.basis_flight or 1, bisection.failing_flight or 1)
    for flight in bisections.earlier_runs(session, branch=bisection.branch, job=bisection.job, since=since):
        if flight in originals:
            continue
        job = flights.load_job(session, flight, bisection.job)
        try:
            node = compared(job, _builds(session, job), bisection)
        except ConfigError:
            continue  # a build of it is not there any more
        result = result_of(job, bisection.testid)
        if node is None or node not in graph.masks or result is None or result[0] not in (Result.PASS, Result.FAIL):
            continue
        if used and (job.last is None or dict(job.last.hosts) != dict(used)):
            continue
        found.append(_original(len(found) + 3, KNOWN, job, node, result[0]))
    return found


def _begin(session: Session, lab: Lab, bisection: Bisection, probes: Sequence[ProbeRun]) -> int:
    target = next((spec for spec in bisection.template if spec.name == bisection.job), None)
    if target is None:
        raise ConfigError(f"the flight has no job {bisection.job!r}")
    testids = [line.testid for line in find_recipe(target.recipe).lines_of(target.runvars)]
    if bisection.testid not in testids:
        raise ConfigError(f"{bisection.job} has no step {bisection.testid!r}", hint=f"it has: {', '.join(testids)}")
    if len(make_graph(bisection.histories).suspects) == 1 and bisection.histories[0].jump:
        basis, failure = (one[:12] for one in (bisection.histories[0].basis, bisection.histories[0].failure))
        raise ConfigError(
            f"tree {bisection.trees[0].repository}: {failure} does not descend from {basis}",
            hint="name a pass that it descends from, such as their `git merge-base`",
        )
    for spec in bisection.template:
        check_job(lab, spec)
    try:
        with session.begin_nested():
            number = bisections.add_bisection(session, replace(bisection, probes=tuple(probes)), now=lab.clock())
    except IntegrityError:  # somebody was quicker
        other = _same(session, bisection, again=True)
        assert other is not None
        return other
    regressions.bisection_moves(
        session, bisection.branch, (bisection.job, bisection.testid), Life.BISECTING, now=lab.clock(), bisection=number,
        reason=f"bisection {number} searches the commit",
    )  # fmt: skip
    db.after_commit(session, lab.bell.ring)
    return number
