"""Bisections as plain data for JSON, and in the words that every face uses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final

from lab.flights.bisection import Belief, Outcome
from lab.flights.bisection_runs import (
    ORIGINAL,
    Bisection,
    BisectionState,
    ProbeRun,
    Result,
    belief_of,
    observations,
)
from lab.flights.revision_graph import Commit, Node

TITLES: Final[Mapping[BisectionState, str]] = MappingProxyType(
    {
        BisectionState.RUNNING: "searching",
        BisectionState.FOUND: "found",
        BisectionState.INCONCLUSIVE: "inconclusive",
        BisectionState.INCONSISTENT: "inconsistent",
        BisectionState.NOT_REPRODUCIBLE: "not reproducible",
        BisectionState.STOPPED: "stopped",
        BisectionState.FAILED: "failed",
    }
)
"""How a state is called before people."""


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None


def probe_view(probe: ProbeRun, trees: tuple[str, ...]) -> dict[str, Any]:
    """One probe."""
    return {
        "number": probe.number,
        "flight": probe.flight,
        "revisions": dict(zip(trees, probe.node, strict=True)),
        "purpose": probe.purpose,
        "result": probe.result.value,
        "reason": probe.reason,
        "started": _time(probe.started),
        "finished": _time(probe.finished),
    }


def bisection_summary(bisection: Bisection) -> dict[str, Any]:
    """A bisection without what lies between its ends."""
    trees = tuple(tree.name for tree in bisection.trees)
    return {
        "bisection": bisection.id,
        "branch": bisection.branch,
        "job": bisection.job,
        "testid": bisection.testid,
        "state": bisection.state.value,
        "reason": bisection.reason,
        "basis_flight": bisection.basis_flight,
        "failing_flight": bisection.failing_flight,
        "actor": bisection.actor,
        "started": _time(bisection.started),
        "finished": _time(bisection.finished),
        "conclusion": dict(bisection.conclusion),
        "probes": [probe_view(probe, trees) for probe in bisection.probes],
    }


def bisection_view(bisection: Bisection) -> dict[str, Any]:
    """A bisection with its ends, how sure it has to be, and what it thinks of each suspect by now."""
    belief = belief_of(bisection)
    left = runs_left(bisection, belief)
    weights = belief.weights()
    likely = sorted(range(len(weights)), key=lambda number: -weights[number])[:20]
    return {
        **bisection_summary(bisection),
        "trees": [
            {
                "name": tree.name,
                "repository": tree.repository,
                "builds": list(tree.builds),
                "basis": history.basis,
                "failure": history.failure,
                "commits": len(history.commits),
            }
            for tree, history in zip(bisection.trees, bisection.histories, strict=True)
        ],
        "policy": {**asdict(bisection.policy), "hosts": bisection.hosts.value, "revert": bisection.revert},
        "suspects": [
            {
                "tree": belief.graph.suspects[number].tree,
                "commit": belief.graph.suspects[number].commit.id,
                "subject": belief.graph.suspects[number].commit.subject,
                "probability": round(weights[number], 6),
            }
            for number in likely
            if weights[number] >= 0.0005
        ],
        "runs_left": left,
        "seconds_left": seconds_left(bisection, left),
        "uncertainty_bits": round(belief.bits, 3),
    }


def runs_left(bisection: Bisection, belief: Belief) -> int:
    """How many more runs it will probably take: what is missing at the ends, what there is to learn, and the edge."""
    if bisection.state.final:
        return 0
    seen = {(probe.node, probe.result) for probe in bisection.probes if probe.purpose not in ORIGINAL}
    graph = belief.graph
    ends = ((graph.basis, Result.PASS) not in seen) + ((graph.failure, Result.FAIL) not in seen)
    best = belief.cells[0]
    alone = best.weight / best.members.bit_count()
    edge = 1 + 4 * min(1.0, 2 * (1 - alone))
    return max(1, ends + ceil(belief.bits / (1 - best.flake) + edge) - len(bisection.running))


def seconds_left(bisection: Bisection, left: int) -> float | None:
    """How long so many runs will probably take, from those that were; None before there was one."""
    took = [
        (probe.finished - probe.started).total_seconds()
        for probe in bisection.probes
        if probe.own and probe.started and probe.finished
    ]
    return left * fmean(took) / bisection.policy.at_once if took else None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What was seen at a node: runs that told something, and those that wait."""

    passes: int = 0
    fails: int = 0
    skipped: bool = False
    running: int = 0

    @property
    def word(self) -> str:
        """pass, fail, both, skip, running, or nothing."""
        if self.passes and self.fails:
            return "both"
        if self.passes or self.fails:
            return "pass" if self.passes else "fail"
        return "running" if self.running else "skip" if self.skipped else ""


def standings(bisection: Bisection) -> dict[Node, Standing]:
    """What was seen at each node that was tested."""
    found: dict[Node, Standing] = {}
    for seen in observations(bisection.probes):
        old = found.get(seen.node, Standing())
        found[seen.node] = Standing(
            passes=old.passes + (seen.outcome is Outcome.PASS),
            fails=old.fails + (seen.outcome is Outcome.FAIL),
            skipped=old.skipped or seen.outcome is Outcome.SKIP,
        )
    for probe in bisection.probes:
        if probe.result is Result.RUNNING:
            old = found.get(probe.node, Standing())
            found[probe.node] = Standing(
                passes=old.passes, fails=old.fails, skipped=old.skipped, running=old.running + 1
            )
    return found


def blamed(bisection: Bisection) -> tuple[tuple[str, Commit], ...]:
    """What was concluded to be to blame, by tree; several when it is not known which of them."""
    commits = {(one.tree, commit.id): commit for one in bisection.histories for commit in one.commits}
    named = ((one["tree"], one["commit"]) for one in bisection.conclusion.get("suspects", ()))
    return tuple((key[0], commits.get(key) or Commit(id=key[1], parents=())) for key in named)
