"""Bisection: which revisions to test next, and when what was seen is enough to blame one. Pure and deterministic.

Hypotheses are the suspects of a `RevisionGraph`: if one is the culprit, whatever contains it fails. Two more stand
beside them: that the failure is older than the basis, and that there is none (the failing run was a fluke). Runs are
noisy: at a bad revision one passes with an unknown probability, at a good one it fails with a small unknown one; both
have Beta priors, so that the probability of what was seen is a product of Beta functions, and the rates are learned
from the same runs that find the culprit. (Probabilistic bisection: Horstein 1963; Burnashev and Zigangirov 1974.)
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import exp, lgamma, log, log2
from typing import Final

from lab.flights.revision_graph import Node, RevisionGraph, Suspect


class Outcome(enum.Enum):
    """What a probe told of the step in question. *skip*: nothing, and it never will (it does not build, say)."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One run at a node. `order` grows with time.

    With `original` it is one of the two runs that began the bisection: they were picked for what they showed, so they
    count as a reproduction, but not as evidence.
    """

    node: Node
    outcome: Outcome
    order: int = 0
    original: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How sure a verdict has to be, and what it may cost."""

    confidence: float = 0.99
    """probability of what is blamed, given what was seen"""
    reproduce: int = 2
    """how often each end has to show its result, with the original run"""
    end_tries: int = 6
    """so many runs in vain at an end (at the failure: for each that failed): it does not reproduce"""
    alternations: int = 2
    """how often the edge has to show a pass and then a failure, in the order of time"""
    at_once: int = 1
    """probes at one time"""
    most_probes: int = 200
    most_skips: int = 20
    """revisions that could not be tested, before the rest of the range is given up"""


class Purpose(enum.Enum):
    """What a probe is for."""

    REPRODUCE = "reproduce"
    SEARCH = "search"
    CONFIRM = "confirm"
    SETTLE = "settle"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A run that is wanted."""

    node: Node
    purpose: Purpose


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What to run next, beside what runs already; empty: first wait for what runs."""

    probes: tuple[Probe, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The culprit: `failing` is the smallest node with it that was seen to fail, `passing` are those before that."""

    suspect: Suspect
    confidence: float
    failing: Node
    passing: tuple[Node, ...]
    outside: tuple[str, ...] = ()
    """parents of the culprit that do not descend from the basis and were not tested: a merge of an older branch"""


@dataclass(frozen=True, kw_only=True)
class Inconclusive:
    """One of these, with that confidence all together, and no more can be told."""

    suspects: tuple[Suspect, ...]
    confidence: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Inconsistent:
    """There is an edge at this suspect, but what was seen at `conflicts` goes against it: there is more than one."""

    suspect: Suspect
    conflicts: tuple[Node, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class NotReproducible:
    """An end (*basis* or *failure*) does not show again what it showed: nobody is to blame."""

    end: str
    reason: str


Decision = Probes | Found | Inconclusive | Inconsistent | NotReproducible

FLAKE: Final = (0.5, 1.0)
"""Beta prior of the probability that a bad revision passes: mostly small, but anything may be."""

FALSE_FAILURE: Final = (0.5, 50.0)
"""Beta prior of the probability that a good revision fails."""

OLDER: Final = 0.05
"""Prior probability that the basis fails, too."""

FLUKE: Final = 0.05
"""Prior probability that the failure does not fail."""

_NEGLIGIBLE: Final = 1e-9
_SHORTLIST: Final = 12
_CONFLICT_RATIO: Final = 50.0
"""A node speaks against a verdict when the other state explains its runs so many times better ..."""
_CONFLICT_RUNS: Final = 3
"""... in so many runs."""
_SKIPS_TOGETHER: Final = 0.5
"""The probability that what stands directly beside a skipped node is skipped, too ..."""
_SKIPS_REACH: Final = 3.0
"""... and how many nodes away it is half of that."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Runs at a node, or at several."""

    passes: int = 0
    fails: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(passes=self.passes + other.passes, fails=self.fails + other.fails)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(passes=self.passes - other.passes, fails=self.fails - other.fails)


def flake_rate(bad: Tally) -> float:
    """The expected probability that a bad revision passes, after these runs at bad ones."""
    return (FLAKE[0] + bad.passes) / (sum(FLAKE) + bad.passes + bad.fails)


def false_failure_rate(good: Tally) -> float:
    """The expected probability that a good revision fails, after these runs at good ones."""
    return (FALSE_FAILURE[0] + good.fails) / (sum(FALSE_FAILURE) + good.passes + good.fails)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _likelihood(bad: Tally, good: Tally) -> float:
    """The logarithm of the probability of the runs, whatever the rates."""
    missed = _log_beta(FLAKE[0] + bad.passes, FLAKE[1] + bad.fails) - _log_beta(*FLAKE)
    wrong = _log_beta(FALSE_FAILURE[0] + good.fails, FALSE_FAILURE[1] + good.passes) - _log_beta(*FALSE_FAILURE)
    return missed + wrong


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Suspects that nothing observed tells apart. `everywhere`: the hypothesis *older* (True) or *fluke* (False)."""

    members: int
    weight: float
    """probability of all of them together"""
    flake: float
    noise: float
    everywhere: bool | None = None

    def bad_share(self, mask: int) -> float:
        """Which part of the cell makes a node with this mask bad."""
        if self.everywhere is not None:
            return float(self.everywhere)
        return (self.members & mask).bit_count() / self.members.bit_count()


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What to think of each hypothesis, given the observations."""

    graph: RevisionGraph
    cells: tuple[Cell, ...]
    """of suspects, the heaviest first"""
    older: Cell
    fluke: Cell
    tallies: Mapping[Node, Tally] = field(default_factory=dict)

    @property
    def every(self) -> tuple[Cell, ...]:
        """All cells that weigh anything."""
        return tuple(cell for cell in (*self.cells, self.older, self.fluke) if cell.weight > _NEGLIGIBLE)

    def bad(self, node: Node) -> float:
        """The probability that a node is bad."""
        mask = self.graph.masks[node]
        return sum(cell.weight * cell.bad_share(mask) for cell in self.every)

    def weights(self) -> list[float]:
        """The probability of each suspect, in the graph's order."""
        weights = [0.0] * len(self.graph.suspects)
        for cell in self.cells:
            for number in _numbers(cell.members):
                weights[number] = cell.weight / cell.members.bit_count()
        return weights

    @cached_property
    def bits(self) -> float:
        """How much is still to be learned: the entropy of the hypotheses."""
        total = 0.0
        for cell in self.every:
            each = cell.weight / max(1, cell.members.bit_count())
            total -= cell.weight * log2(each)
        return max(0.0, total)


def believe(graph: RevisionGraph, observations: Iterable[Observation]) -> Belief:
    """Weigh the hypotheses by what was seen; runs that are `original` or told nothing do not count."""
    tallies: dict[Node, Tally] = {}
    for seen in observations:
        if seen.outcome is not Outcome.SKIP and not seen.original and seen.node in graph.masks:
            one = Tally(passes=1) if seen.outcome is Outcome.PASS else Tally(fails=1)
            tallies[seen.node] = tallies.get(seen.node, Tally()) + one
    whole = sum(tallies.values(), Tally())
    parts = [(1 << len(graph.suspects)) - 1]
    for node in tallies:
        parts = list(_split(parts, graph.masks[node]))
    each = log((1 - OLDER - FLUKE) / len(graph.suspects))
    found: list[tuple[int, Tally, float, bool | None]] = []
    for members in parts:
        bad = sum((tally for node, tally in tallies.items() if graph.masks[node] & members), Tally())
        found.append((members, bad, each + log(members.bit_count()), None))
    found.append((0, whole, log(OLDER), True))
    found.append((0, Tally(), log(FLUKE), False))
    scores = [prior + _likelihood(bad, whole - bad) for _, bad, prior, _ in found]
    top = max(scores)
    total = sum(exp(score - top) for score in scores)
    cells = [
        Cell(
            members=members,
            weight=exp(score - top) / total,
            flake=flake_rate(bad),
            noise=false_failure_rate(whole - bad),
            everywhere=everywhere,
        )
        for (members, bad, _, everywhere), score in zip(found, scores, strict=True)
    ]
    suspects = sorted(cells[:-2], key=lambda cell: (-cell.weight, cell.members))
    return Belief(graph=graph, cells=tuple(suspects), older=cells[-2], fluke=cells[-1], tallies=tallies)


def _split(parts: Iterable[int], mask: int) -> Iterator[int]:
    for part in parts:
        for piece in (part & mask, part & ~mask):
            if piece:
                yield piece


def _numbers(members: int) -> Iterator[int]:
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


def decide(
    graph: RevisionGraph,
    observations: Sequence[Observation],
    policy: Policy = Policy(),
    running: Sequence[Node] = (),
) -> Decision:
    """What to do, given all runs so far and the nodes that are being run.

    Nothing is blamed before both ends have reproduced, the posterior has reached the confidence, and the edge was seen
    to pass and fail in turns. A run that says nothing (*skip*) takes its node out of the search; suspects that only
    such nodes could tell apart are named together.
    """
    return _Deciding(graph, observations, policy, running).decision()


class _Deciding:
    """One decision."""

    def __init__(
        self, graph: RevisionGraph, observations: Sequence[Observation], policy: Policy, running: Sequence[Node]
    ) -> None:
        self.graph = graph
        self.policy = policy
        self.running = list(running)
        self.seen = sorted((one for one in observations if one.node in graph.masks), key=lambda one: one.order)
        self.belief = believe(graph, self.seen)
        told = {one.node for one in self.seen if one.outcome is not Outcome.SKIP and not one.original}
        self.skipped = {one.node for one in self.seen if one.outcome is Outcome.SKIP} - told
        self.testable = [node for node in graph.nodes if node not in self.skipped]
        self.fresh = [one for one in self.seen if not one.original]

    def decision(self) -> Decision:
        """See `decide`."""
        if (verdict := self._about_the_ends()) is not None:
            return verdict
        wanted = self._for_the_ends()
        cell = self.belief.cells[0]
        whole = all(not self._splits(cell.members, node) for node in self.testable)
        if whole and cell.weight >= self.policy.confidence and not wanted:
            edge = self._edge(cell.members)
            wanted = self._for_the_edge(edge)
            if not wanted:
                verdict = self._verdict(cell, edge)
                if not isinstance(verdict, Probes):
                    return verdict
                wanted = list(verdict.probes)
            return self._probes(wanted)
        if self._exhausted():
            return self._give_up()
        asked = self._probes(wanted)
        free = self._free() - len(asked.probes)
        return Probes(probes=(*asked.probes, *self._search(free, [probe.node for probe in asked.probes])))

    # --- the ends

    def _tally(self, node: Node, *, original: bool = False) -> Tally:
        tally = self.belief.tallies.get(node, Tally())
        for one in self.seen:
            if original and one.original and one.node == node and one.outcome is not Outcome.SKIP:
                tally += Tally(passes=1) if one.outcome is Outcome.PASS else Tally(fails=1)
        return tally

    def _about_the_ends(self) -> Decision | None:
        for end, node in (("failure", self.graph.failure), ("basis", self.graph.basis)):
            if node in self.skipped:
                return Inconclusive(
                    suspects=self.graph.suspects,
                    confidence=1 - self.belief.older.weight - self.belief.fluke.weight,
                    reason=f"the {end} cannot be tested any more",
                )
        basis, failure = self._tally(self.graph.basis), self._tally(self.graph.failure)
        in_vain = failure.passes >= self.policy.end_tries * (1 + failure.fails)
        if in_vain or (failure.fails == 0 and self.belief.fluke.weight >= self.policy.confidence):
            runs = failure.passes + failure.fails
            return NotReproducible(end="failure", reason=f"it passed in {failure.passes} of {_times(runs)}")
        if basis.fails and (
            self.belief.older.weight >= self.policy.confidence
            or (basis.passes == 0 and basis.fails >= self.policy.end_tries)
        ):
            runs = basis.passes + basis.fails
            return NotReproducible(end="basis", reason=f"it failed in {basis.fails} of {_times(runs)}")
        return None

    def _for_the_ends(self) -> list[Probe]:
        """The runs at the ends that are still missing; of each at least one is our own."""
        wanted = []
        for node, attribute in ((self.graph.failure, "fails"), (self.graph.basis, "passes")):
            own, all_of_it = (getattr(self._tally(node, original=more), attribute) for more in (False, True))
            missing = max(self.policy.reproduce - all_of_it, 1 - own)
            wanted += [Probe(node=node, purpose=Purpose.REPRODUCE)] * max(0, missing)
        return wanted

    # --- the edge

    def _splits(self, members: int, node: Node) -> bool:
        inside = members & self.graph.masks[node]
        return inside not in (0, members)

    def _edge(self, members: int) -> tuple[Node, tuple[Node, ...]]:
        """The smallest node that has the suspects, and the greatest before it that have none of them."""
        masks, places = self.graph.masks, self.graph.places
        own = [node for node in map(self.graph.node_of, _numbers(members)) if node not in self.skipped]
        having = own or [node for node in self.testable if masks[node] & members]
        failing = min(having, key=lambda node: (masks[node].bit_count(), places[node]))
        below: list[Node] = [node for node in self.graph.parents.get(failing, ()) if not masks[node] & members]
        if not below or self.skipped.intersection(below):
            below = [node for node in self.testable if not masks[node] & members and not masks[node] & ~masks[failing]]
        below.sort(key=lambda node: (-masks[node].bit_count(), places[node]))
        passing: list[Node] = []
        for node in below:
            if all(masks[node] & ~masks[other] for other in passing):
                passing.append(node)
        return failing, tuple(passing)

    def _for_the_edge(self, edge: tuple[Node, tuple[Node, ...]]) -> list[Probe]:
        """What is missing for the edge to have shown a pass and then a failure as often as asked."""
        failing, passing = edge
        done, left, want_failure = 0, set(passing), False
        for one in self.seen:
            if not want_failure and one.outcome is Outcome.PASS and one.node in left:
                left.discard(one.node)
                want_failure = not left
            elif want_failure and one.outcome is Outcome.FAIL and one.node == failing:
                done, left, want_failure = done + 1, set(passing), False
        wanted: list[Node] = []
        while done < self.policy.alternations:
            wanted += [node for node in passing if node in left]
            wanted.append(failing)
            done, left = done + 1, set(passing)
        return [Probe(node=node, purpose=Purpose.CONFIRM) for node in wanted]

    def _verdict(self, cell: Cell, edge: tuple[Node, tuple[Node, ...]]) -> Decision:
        conflicts = self._conflicts(cell.members)
        if unsettled := [node for node, runs in conflicts.items() if runs < _CONFLICT_RUNS]:
            return Probes(probes=tuple(Probe(node=node, purpose=Purpose.SETTLE) for node in unsettled))
        suspects = tuple(self.graph.suspects[number] for number in _numbers(cell.members))
        if conflicts:
            return Inconsistent(
                suspect=suspects[-1],
                conflicts=tuple(conflicts),
                reason="other revisions pass and fail as if it were not there",
            )
        if len(suspects) > 1:
            reason = f"{len(self.skipped)} of the revisions between could not be tested"
            return Inconclusive(suspects=suspects, confidence=cell.weight, reason=reason)
        return Found(
            suspect=suspects[0],
            confidence=cell.weight,
            failing=edge[0],
            passing=edge[1],
            outside=self.graph.outside(suspects[0]),
        )

    def _conflicts(self, members: int) -> dict[Node, int]:
        """The nodes whose runs, by the rates that the others show, speak for the opposite of what the culprit says."""
        bad_nodes = {node for node in self.belief.tallies if self.graph.masks[node] & members}
        bad = sum((self.belief.tallies[node] for node in bad_nodes), Tally())
        good = sum(self.belief.tallies.values(), Tally()) - bad
        found = {}
        for node, tally in self.belief.tallies.items():
            is_bad = node in bad_nodes
            others_bad, others_good = (bad - tally, good) if is_bad else (bad, good - tally)
            as_bad = _likelihood(others_bad + tally, others_good)
            as_good = _likelihood(others_bad, others_good + tally)
            against = as_good - as_bad if is_bad else as_bad - as_good
            if against > log(_CONFLICT_RATIO):
                found[node] = tally.passes + tally.fails
        return found

    # --- the search

    def _exhausted(self) -> bool:
        return len(self.fresh) >= self.policy.most_probes or len(self.skipped) > self.policy.most_skips

    def _give_up(self) -> Inconclusive:
        """Name the fewest suspects that together reach the confidence, or all."""
        weights = self.belief.weights()
        chosen: list[int] = []
        total = 0.0
        for number in sorted(range(len(weights)), key=lambda number: -weights[number]):
            if total >= self.policy.confidence:
                break
            chosen.append(number)
            total += weights[number]
        skips = len(self.skipped) > self.policy.most_skips
        reason = f"{len(self.skipped)} revisions could not be tested" if skips else f"not sure after {len(self.fresh)}"
        return Inconclusive(
            suspects=tuple(self.graph.suspects[number] for number in sorted(chosen)),
            confidence=total,
            reason=reason if skips else f"{reason} runs",
        )

    def _free(self) -> int:
        return max(0, self.policy.at_once - len(self.running))

    def _beyond_running(self, wanted: Sequence[Probe]) -> list[Probe]:
        running = list(self.running)
        beyond = []
        for probe in wanted:
            if probe.node in running:
                running.remove(probe.node)
            else:
                beyond.append(probe)
        return beyond

    def _probes(self, wanted: Sequence[Probe]) -> Probes:
        return Probes(probes=tuple(self._beyond_running(wanted)[: self._free()]))

    def _search(self, count: int, chosen: Sequence[Node]) -> list[Probe]:
        """The `count` nodes that tell most together, beside those that run or are chosen already.

        Of the nodes near the quantiles of the posterior, one after the other is taken that adds most information;
        nodes near skipped ones add less, for they may be skipped, too.
        """
        if count == 0:
            return []
        views = [_View(cell=cell, members=cell.members, weight=cell.weight) for cell in self.belief.every]
        for node in (*self.running, *chosen):
            views = _observed(views, self.graph.masks[node])
        shortlist = self._shortlist(count)
        found = []
        for _ in range(count):
            best = self._instead(max(shortlist, key=lambda node: self._gain(views, node)))
            found.append(Probe(node=best, purpose=Purpose.SEARCH))
            views = _observed(views, self.graph.masks[best])
        return found

    def _instead(self, node: Node) -> Node:
        """The smallest failing node in place of one that has passed more often than anything has failed.

        What passes again and again may yet be flaky, as long as few failures have shown how flaky the failure is: k
        passes at a bad node have a probability of about k^-(1 + failures).
        """
        passes = self.belief.tallies.get(node, Tally()).passes
        failed = [(one, tally) for one, tally in self.belief.tallies.items() if tally.fails > tally.passes]
        if not failed or passes <= max(1, sum(tally.fails for _, tally in failed)):
            return node
        return min(failed, key=lambda one: (self.graph.masks[one[0]].bit_count(), self.graph.places[one[0]]))[0]

    def _gain(self, views: Sequence[_View], node: Node) -> float:
        return _information(_observed(views, self.graph.masks[node])) * self.likely_to_tell(node)

    def _shortlist(self, count: int) -> list[Node]:
        parts = count + len(self.running) + 1
        quantiles = [part / parts for part in range(1, parts)] + ([0.5] if parts % 2 else [])
        if self.skipped:
            quantiles += [0.25, 0.375, 0.625, 0.75]
        bad = {node: self.belief.bad(node) for node in self.testable}
        near: dict[Node, None] = {}
        for quantile in quantiles:
            near |= dict.fromkeys(heapq.nsmallest(_SHORTLIST, bad, key=lambda node: abs(bad[node] - quantile)))
        return list(near)

    def likely_to_tell(self, node: Node) -> float:
        """The probability that a run at the node tells something: less near to nodes that were skipped."""
        if node in self.belief.tallies:
            return 1.0
        place = self.graph.places[node]
        likely = 1.0
        for other in self.skipped:
            likely *= 1 - _SKIPS_TOGETHER / (1 + (abs(self.graph.places[other] - place) - 1) / _SKIPS_REACH)
        return likely


@dataclass(frozen=True, kw_only=True)
class _View:
    """A part of a cell in a future with some more runs: `outcomes` are the probabilities of each of their patterns."""

    cell: Cell
    members: int
    weight: float
    outcomes: tuple[float, ...] = (1.0,)


def _observed(views: Iterable[_View], mask: int) -> list[_View]:
    """The views after one more run at a node of this mask."""
    after = []
    for view in views:
        fails = ((view.cell.noise, view.members & ~mask), (1 - view.cell.flake, view.members & mask))
        if view.cell.everywhere is not None:
            fails = (fails[int(view.cell.everywhere)],)  # type: ignore[assignment]
        for failing, members in fails:
            if view.cell.everywhere is None and not members:
                continue
            share = members.bit_count() / view.members.bit_count() if view.cell.everywhere is None else 1.0
            outcomes = tuple(probability * factor for probability in view.outcomes for factor in (failing, 1 - failing))
            after.append(replace(view, members=members, weight=view.weight * share, outcomes=outcomes))
    return after


def _information(views: Sequence[_View]) -> float:
    """The information, in bits, that the runs will give about the hypotheses."""
    mixture = [0.0] * len(views[0].outcomes)
    noise = 0.0
    for view in views:
        noise += view.weight * _entropy(view.outcomes)
        for number, probability in enumerate(view.outcomes):
            mixture[number] += view.weight * probability
    return _entropy(mixture) - noise


def _entropy(probabilities: Iterable[float]) -> float:
    return -sum(probability * log2(probability) for probability in probabilities if probability > 0)


def _times(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
