"""One step of a bisection: read what its probes told, decide, and start the next ones or end it.

All it knows is in the database, and all it does is one transaction: kill it at any moment, and the next one goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import bisections, flights, hosts, regressions
from lab.errors import ConfigError, LabError
from lab.flights.bisection import Decision, Found, Policy, Probes, Tally, decide, flake_rate
from lab.flights.bisection_runs import (
    REVERT,
    Bisection,
    ProbeRun,
    Result,
    belief_of,
    conclusion_of,
    observations,
    probe_specs,
    result_of,
    state_of,
    told,
)
from lab.flights.bisection_views import runs_left
from lab.flights.recipe import find_recipe
from lab.flights.regression_life import Life
from lab.flights.requests import role_requirement
from lab.flights.revision_graph import Node
from lab.flights.runvars import Runvars
from lab.flights.status import Blessing
from lab.hosts.model import Health, HostState
from lab.services.bisect import abort_running, fail_bisection
from lab.services.construct import construct_flight
from lab.services.report import send_bisection_report
from lab.vcs import Trees

log = logging.getLogger(__name__)

REVERT_DOUBT = 0.1
"""The failure without the culprit has to pass so often that a flake would do so less probably than this ..."""
REVERT_RUNS = 5
"""... but not more often than this."""


def step_bisection(lab: Lab, number: int) -> bool:
    """Take a bisection on; False when nothing was to be done, or somebody else did it."""
    with lab.reads() as session:
        bisection = bisections.load_bisection(session, number)
        if bisection.state.final:
            return False
        news = _news(session, lab, bisection)
        if not news and bisection.turn and bisection.running:
            return False
        free = _free_places(session, lab, bisection)
    probes = {probe.number: probe for probe in (*bisection.probes, *news)}
    after = replace(bisection, probes=tuple(probes.values()))
    decision = _decide(after, free)
    checking = isinstance(decision, Found) and any(probe.purpose == REVERT for probe in after.running)
    reverted = _revert_of(lab, after, decision) if isinstance(decision, Found) and not checking else None
    with lab.sessions.begin() as session:
        if not bisections.take_turn(session, number, bisection.turn):
            return False
        bisections.save_probes(session, number, news)
        match decision:
            case Probes(probes=wanted):
                runs = [(probe.node, probe.purpose.value) for probe in wanted]
                _start(session, lab, after, runs, _progress(after))
            case _ if checking:
                pass
            case Found() if reverted is not None:
                bisections.save_conclusion(session, number, _concluded(lab, after, decision))
                _start(session, lab, after, [(reverted, REVERT)], f"{told(decision)}: is it well without that?")
            case _:
                _end(session, lab, after, decision)
    return True


def step_bisections(lab: Lab) -> int:
    """Take every bisection on that can go on; returns how many did. One that cannot does not hold up the others."""
    with lab.reads() as session:
        running = bisections.running_bisections(session)
    count = 0
    for number in running:
        try:
            count += step_bisection(lab, number)
        except LabError as error:
            log.warning("bisection %s: %s", number, error)
            with lab.sessions.begin() as session:
                fail_bisection(session, lab, number, reason=str(error))
        except Exception:
            log.exception("bisection %s: trying again", number)
    return count


def _news(session: Session, lab: Lab, bisection: Bisection) -> list[ProbeRun]:
    """The running probes whose job has ended by now."""
    news = []
    for probe in bisection.running:
        if probe.flight is None:
            continue
        job = flights.load_job(session, probe.flight, bisection.job)
        if (result := result_of(job, bisection.testid)) is not None:
            finished = job.last.finished if job.last else None
            news.append(replace(probe, result=result[0], reason=result[1][:500], finished=finished or lab.clock()))
    return news


def _free_places(session: Session, lab: Lab, bisection: Bisection) -> int:
    """How many more probes could begin now; a build is made beside others of its kind, one at a time."""
    target = next(spec for spec in bisection.template if spec.name == bisection.job)
    roles = find_recipe(target.recipe).roles
    if not roles:
        return 1
    usable = [
        host
        for host in hosts.present_hosts(session)
        if host.state is HostState.FREE and host.health in (Health.GOOD, Health.SUSPECT)
    ]
    requirement = role_requirement(roles[0], Runvars(target.runvars))
    fit = sum(requirement.offered_by(host) for host in usable)
    most = min(fit, lab.limit.running) if lab.limit else fit
    return most // len(roles)


def _decide(bisection: Bisection, free: int) -> Decision:
    running = [probe for probe in bisection.running if probe.own and probe.purpose != REVERT]
    at_once = max(1, min(bisection.policy.at_once, len(running) + free))
    policy: Policy = replace(bisection.policy, at_once=at_once)
    return decide(bisection.graph, observations(bisection.probes), policy, [probe.node for probe in running])


def _progress(bisection: Bisection) -> str:
    """What there is to say of a bisection that goes on, in a line."""
    belief = belief_of(bisection)
    told_so_far = sum(probe.result in (Result.PASS, Result.FAIL) and probe.own for probe in bisection.probes)
    among = math.ceil(2 ** min(belief.bits, 60))
    return f"{told_so_far} runs told, as uncertain as among {among} commits; about {runs_left(bisection, belief)} more"


# --- doing it


def _start(session: Session, lab: Lab, bisection: Bisection, runs: Sequence[tuple[Node, str]], reason: str) -> None:
    """Make a flight for each run; one that cannot be made tells nothing of its revision, and is kept as that."""
    number = max((probe.number for probe in bisection.probes), default=0)
    made = []
    for node, purpose in runs:
        number += 1
        probe = ProbeRun(
            number=number, flight=None, node=node, purpose=purpose, result=Result.RUNNING, started=lab.clock()
        )
        shown = ", ".join(f"{tree.name} {one[:12]}" for tree, one in zip(bisection.trees, node, strict=True))
        try:
            flight = construct_flight(
                session,
                lab,
                probe_specs(bisection, node),
                branch=bisection.branch,
                intended=Blessing.REAL_BISECT,
                submitter=bisection.actor,
                note=f"bisection {bisection.id} of {bisection.job} {bisection.testid}, {purpose}: {shown}"[:4096],
            )
            probe = replace(probe, flight=flight)
        except ConfigError as error:
            probe = replace(probe, result=Result.SKIP, reason=str(error)[:500], finished=lab.clock())
        made.append(probe)
    bisections.save_probes(session, bisection.id, made)
    bisections.note_progress(session, bisection.id, reason, now=lab.clock())


def _end(session: Session, lab: Lab, bisection: Bisection, decision: Decision) -> None:
    assert not isinstance(decision, Probes)
    conclusion = _concluded(lab, bisection, decision)
    bisections.save_conclusion(session, bisection.id, conclusion)
    reason = told(decision)
    if note := conclusion.get("revert"):
        reason = f"{reason} ({note})"
    bisections.end_bisection(session, bisection.id, state_of(decision), reason, now=lab.clock())
    abort_running(session, lab, bisection, "it has ended")
    _tell_regression(session, lab, bisection, decision, reason)
    send_bisection_report(session, lab, bisection.id)


def _tell_regression(session: Session, lab: Lab, bisection: Bisection, decision: Decision, reason: str) -> None:
    """What was searched is blamed on a commit, or is as it was before."""
    culprit = decision.suspect.commit.id if isinstance(decision, Found) else ""
    regressions.bisection_moves(
        session, bisection.branch, (bisection.job, bisection.testid), Life.BLAMED if culprit else Life.CONFIRMED,
        reason=f"bisection {bisection.id}: {reason}"[:2000], now=lab.clock(), bisection=bisection.id, culprit=culprit,
    )  # fmt: skip


def _concluded(lab: Lab, bisection: Bisection, decision: Decision) -> dict[str, object]:
    assert not isinstance(decision, Probes)
    conclusion = dict(conclusion_of(decision))
    if isinstance(decision, Found):
        tree = next(one for one in bisection.trees if one.name == decision.suspect.tree)
        try:
            conclusion["message"] = Trees(lab.settings.home).message(tree.repository, decision.suspect.commit.id)
        except LabError:
            conclusion["message"] = ""  # the tree vanished; the commit's subject is kept anyway
        conclusion["revert"] = _revert_note(bisection) if bisection.revert else ""
    return conclusion


def _revert_runs(bisection: Bisection) -> list[ProbeRun]:
    return [probe for probe in bisection.probes if probe.purpose == REVERT]


def _revert_of(lab: Lab, bisection: Bisection, found: Found) -> Node | None:
    """The node of the failure without the culprit, as long as it has to be run; None when that is done or cannot be."""
    runs = [probe.result for probe in _revert_runs(bisection)]
    lasting = [result for result in runs if result in (Result.PASS, Result.FAIL, Result.SKIP)]
    enough = len(lasting) >= _revert_runs_wanted(bisection, found) or len(runs) >= 2 * REVERT_RUNS
    if not bisection.revert or enough or any(result is not Result.PASS for result in lasting):
        return None
    place = next(at for at, tree in enumerate(bisection.trees) if tree.name == found.suspect.tree)
    failure = bisection.graph.failure
    if bisection.histories[place].jump:
        return None
    try:
        commit = Trees(lab.settings.home).revert(
            bisection.trees[place].repository,
            found.suspect.commit.id,
            at=failure[place],
            keep=f"{bisection.id}-revert",
        )
    except LabError as error:
        log.warning("bisection %s: %s", bisection.id, error)
        return None
    return None if commit is None else (*failure[:place], commit, *failure[place + 1 :])


def _revert_runs_wanted(bisection: Bisection, found: Found) -> int:
    """How many passes without the culprit are no luck, as flaky as the failure is."""
    graph = bisection.graph
    mask = graph.masks[found.failing]
    tallies = belief_of(bisection).tallies.items()
    bad = sum((tally for node, tally in tallies if not mask & ~graph.masks[node]), Tally())
    return min(REVERT_RUNS, max(1, math.ceil(math.log(REVERT_DOUBT) / math.log(flake_rate(bad)))))


def _revert_note(bisection: Bisection) -> str:
    results = [probe.result for probe in _revert_runs(bisection)]
    if Result.FAIL in results:
        return "without it the failure stays: there is another cause, too"
    if Result.PASS in results:
        return "reverting it mends the failure"
    if results:
        return "the failure without it could not be tested"
    return "it cannot be taken out of the failing revision cleanly"
