"""Bisections against oracles that are sometimes wrong: whom they blame, how sure they are, what it costs."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from math import comb, log2
from pathlib import Path
from statistics import fmean

import pytest
from bisection_trials import a_line, bisect, capacity, graphs, line, originals, with_culprit
from hypothesis import given
from hypothesis import strategies as st

from lab.flights.bisection import (
    Found,
    Inconclusive,
    Inconsistent,
    NotReproducible,
    Observation,
    Outcome,
    Policy,
    Probes,
    Purpose,
    believe,
    decide,
)
from lab.flights.revision_graph import Commit, RevisionGraph, history_of, make_graph

GOLDEN = Path(__file__).parents[1] / "golden" / "osstest-bisections.json"


def at_most(probability: float, runs: int) -> int:
    """How often what has that probability happens in so many runs, but for one case in a thousand."""
    cumulated = 0.0
    for count in range(runs + 1):
        cumulated += comb(runs, count) * probability**count * (1 - probability) ** (runs - count)
        if cumulated > 0.999:
            return count
    return runs


# --- a noisy oracle


@pytest.mark.parametrize(
    ("confidence", "flake", "noise", "trials"),
    [(0.99, 0.0, 0.0, 60), (0.99, 0.15, 0.01, 100), (0.99, 0.5, 0.01, 120), (0.9, 0.3, 0.01, 120)],
)
def test_the_culprit_is_named_at_the_stated_confidence(
    confidence: float, flake: float, noise: float, trials: int
) -> None:
    graph, policy = a_line(16), Policy(confidence=confidence, alternations=1)
    right = wrong = 0
    for seed in range(trials):
        culprit = random.Random(seed).randrange(16)
        end = bisect(graph, with_culprit(graph, culprit), flake=flake, noise=noise, policy=policy, seed=seed)
        if isinstance(end.decision, Found):
            named = end.decision.suspect is graph.suspects[culprit]
            right, wrong = right + named, wrong + (not named)
            assert end.decision.confidence >= confidence
    assert wrong <= at_most(1 - confidence, trials)
    assert right >= 0.9 * trials  # and hardly ever does it give up


@pytest.mark.parametrize(("flake", "noise"), [(0.0, 0.0), (0.1, 0.01), (0.3, 0.01)])
@pytest.mark.parametrize("commits", [16, 256])
def test_the_runs_are_near_the_information_theoretic_bound(commits: int, flake: float, noise: float) -> None:
    """Naming one of n with an error of d over a channel of capacity C takes log2(n/d)/C runs (Burnashev). The factor
    is 1.4 at most, and 4 runs more: the ends, and the turns of pass and failure at the edge, are asked for besides."""
    graph = a_line(commits)
    runs = [
        bisect(graph, with_culprit(graph, random.Random(seed).randrange(commits)), flake=flake, noise=noise, seed=seed)
        for seed in range(20)
    ]
    assert fmean(run.probes for run in runs) <= 1.4 * log2(commits / 0.01) / capacity(flake, noise) + 4


def test_little_confidence_is_had_cheaply() -> None:
    graph, policy = a_line(256), Policy(confidence=0.9, alternations=1)
    runs = [bisect(graph, with_culprit(graph, culprit), policy=policy, seed=culprit) for culprit in range(1, 256, 17)]
    assert all(isinstance(run.decision, Found) for run in runs)
    assert fmean(run.probes for run in runs) <= 1.4 * log2(256 / 0.1) + 4


def test_several_probes_at_once_take_fewer_rounds() -> None:
    graph = a_line(256)
    rounds = {}
    for at_once in (1, 3, 7):
        ends = [
            bisect(graph, with_culprit(graph, culprit), policy=Policy(at_once=at_once), seed=culprit)
            for culprit in range(3, 256, 45)
        ]
        assert all(isinstance(end.decision, Found) for end in ends)
        rounds[at_once] = fmean(end.rounds for end in ends)
    # log2(n) rounds become log2(n)/log2(k+1) of them; the confirmation runs side by side, too
    assert rounds[3] < 0.6 * rounds[1]
    assert rounds[7] < 0.45 * rounds[1]


@pytest.mark.parametrize(
    ("bad", "flake", "noise"), [("none", 0.0, 0.0), ("none", 0.0, 0.02), ("all", 0.2, 0.0), ("all", 0.0, 0.0)]
)
def test_nobody_is_blamed_when_the_ends_do_not_reproduce(bad: str, flake: float, noise: float) -> None:
    graph, trials = a_line(30), 80
    nodes = frozenset(graph.masks) if bad == "all" else frozenset()
    blamed = 0
    for seed in range(trials):
        end = bisect(graph, nodes, flake=flake, noise=noise, policy=Policy(at_once=1 + seed % 4), seed=seed)
        if isinstance(end.decision, Found):
            blamed += 1
            basis = [one.outcome for one in end.observations if one.node == graph.basis and not one.original]
            assert basis.count(Outcome.PASS) >= 1 + basis.count(Outcome.FAIL)  # it did reproduce, by chance
            continue
        if isinstance(end.decision, Inconclusive) and noise:
            continue  # it failed once by chance, and so seldom may a failure be
        assert isinstance(end.decision, NotReproducible), (seed, end.decision)
        assert end.decision.end == ("basis" if bad == "all" else "failure")
    assert blamed <= (at_most(0.01, trials) if flake or noise else 0)


def test_no_verdict_before_both_ends_were_run_again() -> None:
    graph = a_line(8)
    for seed in range(8):
        end = bisect(graph, with_culprit(graph, seed), seed=seed)
        own = [one for one in end.observations if not one.original]
        assert any(one.node == graph.basis and one.outcome is Outcome.PASS for one in own)
        assert any(one.node == graph.failure and one.outcome is Outcome.FAIL for one in own)


@pytest.mark.parametrize("alternations", [2, 4])
def test_the_edge_has_shown_a_pass_and_then_a_failure_as_often_as_asked(alternations: int) -> None:
    graph = a_line(8)
    for culprit in range(8):
        end = bisect(graph, with_culprit(graph, culprit), policy=Policy(alternations=alternations), seed=culprit)
        assert isinstance(end.decision, Found)
        turns, want = 0, Outcome.PASS
        for one in end.observations:
            if one.node == ((end.decision.passing[0]) if want is Outcome.PASS else end.decision.failing):
                turns += want is Outcome.FAIL
                want = Outcome.FAIL if want is Outcome.PASS else Outcome.PASS
        assert turns >= alternations


# --- skips, merges, several trees: an oracle that is always right


def blamed_rightly(graph: RevisionGraph, culprit: int, decision: object) -> bool:
    match decision:
        case Found(suspect=suspect):
            return suspect is graph.suspects[culprit]
        case Inconclusive(suspects=suspects):
            return graph.suspects[culprit] in suspects
    return False


@given(graphs(), st.data())
def test_skips_never_name_an_innocent(graph: RevisionGraph, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, len(graph.suspects) - 1))
    between = [node for node in graph.nodes if node not in (graph.basis, graph.failure)]
    skips = frozenset(data.draw(st.sets(st.sampled_from(between)))) if between else frozenset()
    end = bisect(graph, with_culprit(graph, culprit), skips=skips, policy=Policy(at_once=data.draw(st.integers(1, 3))))
    assert blamed_rightly(graph, culprit, end.decision)
    node = graph.node_of(culprit)
    if node not in skips and not skips.intersection(graph.parents[node]):
        assert isinstance(end.decision, Found)
    if isinstance(end.decision, Inconclusive):
        assert len(end.decision.suspects) > 1
        # each of them hides: its own node was skipped, or one directly before it
        tested = {one.node for one in end.observations if one.outcome is not Outcome.SKIP}
        for suspect in end.decision.suspects:
            place = graph.suspects.index(suspect)
            assert not {graph.node_of(place), *graph.parents[graph.node_of(place)]} <= tested


def test_what_is_next_to_a_revision_that_does_not_build_is_tried() -> None:
    graph = a_line(21)
    skips = frozenset({graph.node_of(9), graph.node_of(10)})
    end = bisect(graph, with_culprit(graph, 10), skips=skips)
    assert isinstance(end.decision, Inconclusive)
    assert [one.commit.id for one in end.decision.suspects] == ["r10", "r11", "r12"]
    tested = {one.node[0] for one in end.observations}
    assert {"r9", "r12"} <= tested
    assert end.probes < 25


def test_a_stretch_that_does_not_build_is_left_quickly() -> None:
    graph = a_line(128)
    skips = frozenset(graph.node_of(number) for number in range(60, 72))
    end = bisect(graph, with_culprit(graph, 90), skips=skips)
    assert isinstance(end.decision, Found)
    assert end.decision.suspect is graph.suspects[90]
    assert sum(one.outcome is Outcome.SKIP for one in end.observations) <= 2


def test_a_long_stretch_that_does_not_build_is_given_up_and_named() -> None:
    graph = a_line(100)
    skips = frozenset(graph.node_of(number) for number in range(20, 90))
    end = bisect(graph, with_culprit(graph, 50), skips=skips)
    assert isinstance(end.decision, Inconclusive)
    assert graph.suspects[50] in end.decision.suspects
    assert "could not be tested" in end.decision.reason
    assert end.probes < 60


def test_an_end_that_cannot_be_tested_any_more_ends_it() -> None:
    graph = a_line(5)
    end = bisect(graph, with_culprit(graph, 2), skips={graph.basis})
    assert isinstance(end.decision, Inconclusive)
    assert "basis cannot be tested" in end.decision.reason


@given(graphs(trees=2, most=6), st.data())
def test_of_several_trees_the_right_commit_is_found(graph: RevisionGraph, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, len(graph.suspects) - 1))
    end = bisect(graph, with_culprit(graph, culprit))
    assert isinstance(end.decision, Found)
    assert end.decision.suspect is graph.suspects[culprit]
    for node in end.decision.passing:  # the edge differs in the blamed tree alone
        differ = [
            tree for tree, one, other in zip(graph.trees, node, end.decision.failing, strict=True) if one != other
        ]
        assert differ == [end.decision.suspect.tree]


@given(graphs(), st.data())
def test_merges_are_blamed_for_what_they_bring_together_only(graph: RevisionGraph, data: st.DataObject) -> None:
    """Two branches that break only together: the merge is what fails first."""
    merges = [number for number in range(len(graph.suspects)) if len(graph.parents[graph.node_of(number)]) > 1]
    if not merges:
        return
    merge = data.draw(st.sampled_from(merges))
    end = bisect(graph, with_culprit(graph, merge))
    assert isinstance(end.decision, Found)
    assert end.decision.suspect is graph.suspects[merge]
    parents = graph.parents[graph.node_of(merge)]
    last = {
        one
        for one in parents
        if not any(
            graph.masks[one] < graph.masks[other] and not graph.masks[one] & ~graph.masks[other] for other in parents
        )
    }
    assert set(end.decision.passing) == last


def test_a_merge_of_many_branches_is_found_without_testing_each_again_and_again() -> None:
    branches = [Commit(id=f"b{number}", parents=("r0",)) for number in range(12)]
    octopus = Commit(id="m", parents=tuple(one.id for one in branches))
    graph = make_graph([history_of("r", "r0", "m", [*branches, octopus])])
    end = bisect(graph, with_culprit(graph, 12))
    assert isinstance(end.decision, Found)
    assert end.decision.suspect.commit.id == "m"
    assert len(end.decision.passing) == 12
    assert end.probes <= 8 * 12


def test_two_breakages_end_at_a_true_edge_or_as_inconsistent() -> None:
    graph = a_line(40)
    bad = frozenset(graph.node_of(number) for number in [*range(10, 20), *range(25, 40)])
    for at_once in (1, 2, 5):
        end = bisect(graph, bad, policy=Policy(at_once=at_once))
        assert isinstance(end.decision, Found | Inconsistent)
        assert end.decision.suspect.commit.id in ("r11", "r26")


def test_a_contradictory_history_is_called_that_and_blames_nobody() -> None:
    graph = a_line(10)
    seen = [*originals(graph)]
    shown = {2: Outcome.PASS, 3: Outcome.FAIL, 6: Outcome.PASS, 8: Outcome.FAIL, 10: Outcome.FAIL, 0: Outcome.PASS}
    for order in range(8):
        seen += [Observation(node=(f"r{one}",), outcome=what, order=order * 10 + one) for one, what in shown.items()]
    decision = decide(graph, seen)
    assert isinstance(decision, Inconsistent)
    assert decision.conflicts == (("r6",),)


# --- whatever happens


@given(graphs(), st.data())
def test_a_decision_depends_on_what_was_seen_alone(graph: RevisionGraph, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, len(graph.suspects) - 1))
    whole = bisect(graph, with_culprit(graph, culprit), flake=0.2, seed=data.draw(st.integers(0, 5))).observations
    seen = list(whole[: data.draw(st.integers(2, len(whole)))])
    mixed = data.draw(st.permutations(seen))
    assert decide(graph, seen) == decide(graph, mixed)


@given(graphs(), st.integers(1, 6), st.data())
def test_what_runs_already_is_not_asked_for_again(graph: RevisionGraph, at_once: int, data: st.DataObject) -> None:
    policy = Policy(at_once=at_once)
    running = data.draw(st.lists(st.sampled_from(graph.nodes), max_size=at_once))
    decision = decide(graph, originals(graph), policy, running)
    assert isinstance(decision, Probes)
    assert len(decision.probes) == at_once - len(running)
    for end in (graph.basis, graph.failure):
        asked = [probe for probe in decision.probes if probe.node == end and probe.purpose is Purpose.REPRODUCE]
        assert len(asked) <= (end not in running)


def test_what_runs_already_leaves_another_half_to_search() -> None:
    graph = a_line(64)
    seen = [
        *originals(graph),
        Observation(node=graph.basis, outcome=Outcome.PASS, order=1),
        Observation(node=graph.failure, outcome=Outcome.FAIL, order=2),
    ]
    alone = decide(graph, seen)
    assert isinstance(alone, Probes)
    middle = alone.probes[0].node
    beside = decide(graph, seen, Policy(at_once=2), [middle])
    assert isinstance(beside, Probes)
    assert abs(graph.places[beside.probes[0].node] - graph.places[middle]) > 10


@given(graphs(trees=2, most=5), st.data())
def test_probabilities_add_up(graph: RevisionGraph, data: st.DataObject) -> None:
    outcomes = st.sampled_from([Outcome.PASS, Outcome.FAIL])
    runs = data.draw(st.lists(st.tuples(st.sampled_from(graph.nodes), outcomes), max_size=12))
    belief = believe(graph, [Observation(node=node, outcome=outcome) for node, outcome in runs])
    assert sum(belief.weights()) + belief.older.weight + belief.fluke.weight == pytest.approx(1)
    assert 0 <= belief.bits <= log2(len(graph.suspects) + 2) + 1e-9
    for node, parents in graph.parents.items():  # what has more in it is bad at least as probably
        for parent in parents:
            assert belief.bad(parent) <= belief.bad(node) + 1e-9


def test_a_flaky_test_is_run_more_often_than_a_steady_one() -> None:
    graph = a_line(32)
    steady, flaky = (
        fmean(bisect(graph, with_culprit(graph, 9), flake=flake, seed=seed).probes for seed in range(20))
        for flake in (0.0, 0.4)
    )
    assert flaky > 1.5 * steady


# --- what OSSTest published


@pytest.mark.parametrize("number", [0, 1])
def test_the_published_bisections_end_as_published(number: int) -> None:
    """Their results, in order, lead to their culprit; none before the last of them leads to anybody else."""
    case = json.loads(GOLDEN.read_text())[number]
    results = [(flight, result, tuple(revisions)) for flight, result, *revisions in case["results"]]
    place = case["trees"].index(case["bug_tree"])
    # What lay between what was tested is not known; in which order each half came, matters to nobody.
    basis = next(node for flight, _, node in results if flight == case["basis_flight"])
    failure = next(node for flight, _, node in results if flight == case["failure_flight"])
    good = dict.fromkeys(node[place] for _, result, node in results if result == "pass" and node != basis)
    bad = dict.fromkeys(node[place] for _, result, node in results if result == "fail" and node != failure)
    last, first = case["bug_not_present"], case["bug_introduced"]
    order = [basis[place], *sorted(good, key=lambda one: one == last), first, *(one for one in bad if one != first)]
    order.append(failure[place])
    commits = [Commit(id=one, parents=(before,)) for before, one in pairwise(order)]
    graph = make_graph([history_of(case["bug_tree"], order[0], order[-1], commits)])
    seen: list[Observation] = []
    decision = None
    for flight, result, node in results:
        original = flight in (case["basis_flight"], next(at for at, what, _ in results if what == "fail"))
        outcome = Outcome.PASS if result == "pass" else Outcome.FAIL
        seen.append(Observation(node=(node[place],), outcome=outcome, order=flight, original=original))
        decision = decide(graph, seen, Policy(confidence=0.95))
        assert isinstance(decision, Probes | Found)
        if isinstance(decision, Found):
            assert decision.suspect.commit.id == case["bug_introduced"]
    assert isinstance(decision, Found)
    assert decision.passing == ((case["bug_not_present"],),)


def test_trees_that_moved_together_are_joined_by_date() -> None:
    graph = make_graph([line("x", 3), line("q", 2, since=5, every=12)])
    assert graph.nodes == (
        ("x0", "q0"), ("x1", "q0"), ("x1", "q1"), ("x2", "q1"), ("x2", "q2"), ("x3", "q2"),
    )  # fmt: skip
