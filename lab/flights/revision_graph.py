"""The revisions between a pass and a failure: every tree's history, and tuples of them in product order. Pure.

A *node* is one revision of each tree. A node contains a commit when its revision of that commit's tree is the commit
or descends from it; one node comes before another when it contains less. That order says what a bisection may
conclude: who contains the culprit fails. Dates only choose which of the very many tuples are worth a test: those that
could have been checked out together at some time, as OSSTest's `adhoc-revtuple-generator` has them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lab.errors import ConfigError

Node = tuple[str, ...]
"""A revision of each tree, in the order of the graph's trees."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit; `when` is its committer's time in seconds since 1970. Names and subjects are untrusted text."""

    id: str
    parents: tuple[str, ...]
    when: int = 0
    author: str = ""
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """What lies between two revisions of one tree: `commits` has the failure and not the basis, parents first.

    Every commit descends from the basis and leads to the failure. Parents outside of that are kept: a merge may bring
    in a branch that began before the basis.
    """

    tree: str
    basis: str
    failure: str
    commits: tuple[Commit, ...]
    jump: bool = False
    """the failure does not descend from the basis: the one commit stands for all that differs"""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A commit that may have brought the failure."""

    tree: str
    commit: Commit


def history_of(tree: str, basis: str, failure: str, commits: Iterable[Commit]) -> History:
    """The part of `commits` that descends from `basis` and leads to `failure`, parents first, else the older first.

    When the failure does not descend from the basis, it is one step from there: nothing tells what lies between.
    """
    known = {commit.id: commit for commit in commits}
    if basis == failure:
        return History(tree=tree, basis=basis, failure=failure, commits=())
    leading = _reached(failure, lambda one: known[one].parents if one in known and one != basis else ())
    children: dict[str, list[str]] = {}
    for one in leading:
        for parent in known[one].parents if one in known else ():
            children.setdefault(parent, []).append(one)
    relevant = _reached(basis, lambda one: children.get(one, ())) - {basis}
    if failure not in relevant:
        step = Commit(
            id=failure,
            parents=(basis,),
            when=known[failure].when if failure in known else 0,
            subject=f"all that differs from {basis[:12]}, of which it is no descendant",
        )
        return History(tree=tree, basis=basis, failure=failure, commits=(step,), jump=True)
    return History(tree=tree, basis=basis, failure=failure, commits=_parents_first([known[one] for one in relevant]))


def _reached(start: str, following: Callable[[str], Iterable[str]]) -> set[str]:
    seen, todo = {start}, deque([start])
    while todo:
        for other in following(todo.popleft()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def _parents_first(commits: Sequence[Commit]) -> tuple[Commit, ...]:
    known = {commit.id: commit for commit in commits}
    missing = {commit.id: sum(parent in known for parent in set(commit.parents)) for commit in commits}
    children: dict[str, list[str]] = {}
    for commit in commits:
        for parent in set(commit.parents):
            children.setdefault(parent, []).append(commit.id)
    ready = [(known[one].when, one) for one, count in missing.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, one = heapq.heappop(ready)
        ordered.append(known[one])
        for child in children.get(one, ()):
            missing[child] -= 1
            if missing[child] == 0:
                heapq.heappush(ready, (known[child].when, child))
    if len(ordered) != len(commits):
        raise ConfigError("the history of a tree goes in a circle")
    return tuple(ordered)


@dataclass(frozen=True, kw_only=True)
class RevisionGraph:
    """The suspects of some trees, in one order, and the nodes worth a test.

    `suspects` has the parents of each before it. `nodes` are the basis, then one node for each suspect (that suspect
    is the newest thing in it), then what else stands directly before one of these. A set of suspects is a number: bit i
    is suspect i.
    """

    histories: tuple[History, ...]
    suspects: tuple[Suspect, ...]
    nodes: tuple[Node, ...]
    masks: Mapping[Node, int]
    """what each node contains"""
    parents: Mapping[Node, tuple[Node, ...]]
    """the nodes directly before that of a suspect: all that it has but for that suspect"""

    @property
    def trees(self) -> tuple[str, ...]:
        """The names of the trees."""
        return tuple(history.tree for history in self.histories)

    @property
    def basis(self) -> Node:
        """Where it is said to pass."""
        return tuple(history.basis for history in self.histories)

    @property
    def failure(self) -> Node:
        """Where it is said to fail."""
        return tuple(history.failure for history in self.histories)

    def node_of(self, suspect: int) -> Node:
        """The node whose newest commit is suspect number `suspect`."""
        return self.nodes[suspect + 1]

    @cached_property
    def places(self) -> Mapping[Node, int]:
        """Where each node is in `nodes`."""
        return {node: place for place, node in enumerate(self.nodes)}

    def outside(self, suspect: Suspect) -> tuple[str, ...]:
        """Parents of a suspect that do not descend from the basis: what a merge brought in from an older branch."""
        history = next(one for one in self.histories if one.tree == suspect.tree)
        inside = {commit.id for commit in history.commits} | {history.basis}
        return tuple(parent for parent in suspect.commit.parents if parent not in inside)


def make_graph(histories: Sequence[History]) -> RevisionGraph:
    """Join the histories of trees that moved; `ConfigError` when none did."""
    moving = tuple(history for history in histories if history.commits)
    if not moving:
        raise ConfigError("the pass and the failure have the same revisions", hint="there is nothing to bisect")
    if len({history.tree for history in moving}) != len(moving):
        raise ConfigError("a tree has two histories")
    suspects = _joined(moving)
    bits = {(one.tree, one.commit.id): 1 << number for number, one in enumerate(suspects)}
    contains: dict[tuple[str, str], int] = {(history.tree, history.basis): 0 for history in moving}
    for one in suspects:
        mask = bits[one.tree, one.commit.id]
        for parent in one.commit.parents:
            mask |= contains.get((one.tree, parent), 0)
        contains[one.tree, one.commit.id] = mask
    trees = [history.tree for history in moving]
    mainlines = [_mainline(history) for history in moving]
    at = [history.basis for history in moving]
    nodes: dict[Node, None] = {tuple(at): None}
    parents: dict[Node, tuple[Node, ...]] = {}
    for one in suspects:
        tree = trees.index(one.tree)
        node = _replaced(at, tree, one.commit.id)
        nodes[node] = None
        if one.commit.id in mainlines[tree]:
            at[tree] = one.commit.id
        before = (parent for parent in one.commit.parents if (one.tree, parent) in contains)
        parents[node] = tuple(_replaced(node, tree, parent) for parent in dict.fromkeys(before))
    nodes |= dict.fromkeys(parent for before in parents.values() for parent in before)
    masks = {}
    for node in nodes:
        mask = 0
        for tree_name, revision in zip(trees, node, strict=True):
            mask |= contains[tree_name, revision]
        masks[node] = mask
    return RevisionGraph(histories=moving, suspects=suspects, nodes=tuple(nodes), masks=masks, parents=parents)


def _replaced(node: Sequence[str], place: int, revision: str) -> Node:
    return (*node[:place], revision, *node[place + 1 :])


def _joined(histories: Sequence[History]) -> tuple[Suspect, ...]:
    """All commits: those of a tree in its order, and the trees by date between each other."""
    waiting = [deque(history.commits) for history in histories]
    joined = []
    while any(waiting):
        tree = min((place for place, queue in enumerate(waiting) if queue), key=lambda place: waiting[place][0].when)
        joined.append(Suspect(tree=histories[tree].tree, commit=waiting[tree].popleft()))
    return tuple(joined)


def _mainline(history: History) -> frozenset[str]:
    """The commits on the way back from the failure by first parents, as long as these descend from the basis."""
    known = {commit.id: commit for commit in history.commits}
    line, one = set(), history.failure
    while one in known:
        line.add(one)
        one = next((parent for parent in known[one].parents if parent in known), history.basis)
    return frozenset(line)

