"""Histories of trees, and what stands before what."""

from __future__ import annotations

import pytest

from lab.errors import ConfigError
from lab.flights.revision_graph import Commit, history_of, make_graph


def commits(**parents: str) -> list[Commit]:
    """`b="a", m="b c"`: each commit with its parents, as old as it is far on."""
    return [Commit(id=name, parents=tuple(of.split()), when=at) for at, (name, of) in enumerate(parents.items())]


def test_only_what_descends_from_the_basis_and_leads_to_the_failure_counts() -> None:
    # old - a(basis) - b - m(failure) - later ;  old - s - m ;  a - astray
    given = commits(old="", a="old", b="a", s="old", m="b s", later="m", astray="a")
    history = history_of("xen", "a", "m", given)
    assert [one.id for one in history.commits] == ["b", "m"]
    graph = make_graph([history])
    assert graph.outside(graph.suspects[1]) == ("s",)
    assert graph.nodes == (("a",), ("b",), ("m",))
    assert graph.parents["m",] == (("b",),)


def test_a_branch_that_began_after_the_basis_is_searched() -> None:
    history = history_of("xen", "a", "m", commits(b="a", s="a", t="s", m="b t"))
    graph = make_graph([history])
    assert [one.commit.id for one in graph.suspects] == ["b", "s", "t", "m"]
    assert set(graph.parents["m",]) == {("b",), ("t",)}
    assert graph.masks["t",].bit_count() == 2


def test_a_failure_that_does_not_descend_from_the_basis_is_one_step() -> None:
    history = history_of("xen", "a", "z", commits(a="old", b="old", z="b"))
    assert [(one.id, one.parents) for one in history.commits] == [("z", ("a",))]
    assert history.jump
    assert history.commits[0].subject == "all that differs from a, of which it is no descendant"


def test_trees_that_did_not_move_are_left_out() -> None:
    graph = make_graph([history_of("xen", "a", "b", commits(b="a")), history_of("qemu", "q", "q", [])])
    assert graph.trees == ("xen",)


def test_equal_ends_are_nothing_to_bisect() -> None:
    with pytest.raises(ConfigError, match="same revisions"):
        make_graph([history_of("xen", "a", "a", [])])


def test_the_failure_is_the_last_node_of_a_suspect() -> None:
    graph = make_graph(
        [history_of("xen", "a", "c", commits(b="a", c="b")), history_of("qemu", "q", "r", commits(r="q"))]
    )
    assert graph.node_of(len(graph.suspects) - 1) == graph.failure == ("c", "r")
    assert graph.masks[graph.failure] == 0b111
    assert graph.masks[graph.basis] == 0
