"""Bisections of made-up histories, with oracles that are right most of the time."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import log2

from hypothesis import strategies as st

from lab.flights.bisection import Decision, Observation, Outcome, Policy, Probes, decide
from lab.flights.revision_graph import Commit, History, Node, RevisionGraph, history_of, make_graph


def line(tree: str, commits: int, *, since: int = 0, every: int = 10) -> History:
    """A linear history: TREE0 .. TREEn, one commit each `every` seconds."""
    return history_of(
        tree,
        f"{tree}0",
        f"{tree}{commits}",
        [
            Commit(id=f"{tree}{number}", parents=(f"{tree}{number - 1}",), when=since + every * number)
            for number in range(1, commits + 1)
        ],
    )


def a_line(commits: int) -> RevisionGraph:
    return make_graph([line("r", commits)])


@st.composite
def histories(draw: st.DrawFn, tree: str = "r", most: int = 12) -> History:
    """Branches and merges; a last commit joins all that nothing followed."""
    parents: list[tuple[str, ...]] = []
    for number in range(1, draw(st.integers(1, most)) + 1):
        earlier = [f"{tree}{one}" for one in range(number)]
        parents.append(tuple(draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2, unique=True))))
    followed = {parent for each in parents for parent in each}
    ends = [f"{tree}{number}" for number in range(len(parents) + 1) if f"{tree}{number}" not in followed]
    if len(ends) > 1:
        parents.append(tuple(ends))
    commits = [
        Commit(id=f"{tree}{number}", parents=each, when=draw(st.integers(0, 99)))
        for number, each in enumerate(parents, 1)
    ]
    return history_of(tree, f"{tree}0", f"{tree}{len(parents)}", commits)


@st.composite
def graphs(draw: st.DrawFn, *, trees: int = 1, most: int = 12) -> RevisionGraph:
    return make_graph([draw(histories(f"{'rst'[number]}", most)) for number in range(trees)])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a bisection went."""

    decision: Decision
    probes: int
    rounds: int
    observations: tuple[Observation, ...]


def originals(graph: RevisionGraph) -> list[Observation]:
    """The two runs that a bisection begins with."""
    return [
        Observation(node=graph.basis, outcome=Outcome.PASS, original=True),
        Observation(node=graph.failure, outcome=Outcome.FAIL, original=True),
    ]


def bisect(
    graph: RevisionGraph,
    bad: Collection[Node],
    *,
    flake: float = 0.0,
    noise: float = 0.0,
    skips: Collection[Node] = (),
    policy: Policy | None = None,
    seed: int = 0,
) -> Trial:
    """Bisect to the end: nodes in `bad` fail but for `flake`, the others pass but for `noise`, `skips` tell nothing."""
    policy, chance = policy or Policy(), random.Random(seed)
    seen, probes, rounds = originals(graph), 0, 0
    while isinstance(decision := decide(graph, seen, policy), Probes):
        assert 0 < len(decision.probes) <= policy.at_once
        rounds += 1
        for probe in decision.probes:
            probes += 1
            fails = chance.random() < (1 - flake if probe.node in bad else noise)
            outcome = Outcome.SKIP if probe.node in skips else Outcome.FAIL if fails else Outcome.PASS
            seen.append(Observation(node=probe.node, outcome=outcome, order=probes))
        assert probes < 2000
    return Trial(decision=decision, probes=probes, rounds=rounds, observations=tuple(seen))


def with_culprit(graph: RevisionGraph, *suspects: int) -> frozenset[Node]:
    """The nodes that have one of the suspects."""
    return frozenset(node for node, mask in graph.masks.items() if any(mask >> one & 1 for one in suspects))


def capacity(flake: float, noise: float) -> float:
    """The bits that one run can tell: the capacity of the channel between a revision's state and what a run shows."""
    shares = [number / 200 for number in range(1, 200)]
    return max(
        _entropy(share * (1 - flake) + (1 - share) * noise) - share * _entropy(flake) - (1 - share) * _entropy(noise)
        for share in shares
    )


def _entropy(probability: float) -> float:
    parts: Sequence[float] = (probability, 1 - probability)
    return -sum(part * log2(part) for part in parts if part > 0)
