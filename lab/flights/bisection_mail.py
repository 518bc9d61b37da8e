"""The mail about a bisection, in the layout of OSSTest's `cs-bisection-step`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.flights.bisection_runs import REVERT, Bisection, BisectionState, Result
from lab.flights.bisection_views import blamed
from lab.flights.plain_text import clean
from lab.flights.revision_graph import Node

_SUBJECTS: Final = {
    BisectionState.RUNNING: "testing",
    BisectionState.FOUND: "complete",
    BisectionState.INCONCLUSIVE: "inconclusive",
    BisectionState.INCONSISTENT: "inconsistent",
    BisectionState.NOT_REPRODUCIBLE: "unreproducible",
    BisectionState.STOPPED: "stopped",
    BisectionState.FAILED: "broken",
}
_RESULTS: Final = {Result.SKIP: "blocked"}
"""What OSSTest calls the results that have another name here."""
_RULE: Final = "-" * 60
MOST_SUSPECTS: Final = 50


@dataclass(frozen=True, kw_only=True)
class BisectionMail:
    """Subject and body; lines as they were written, so a name may make one long."""

    subject: str
    body: str


def bisection_mail(bisection: Bisection, *, url: str = "") -> BisectionMail:
    """The mail about a bisection as it stands; `url` is where the lab's pages are (empty: nowhere)."""
    subject = f"[{bisection.branch} bisection] {_SUBJECTS[bisection.state]} {bisection.job}"
    return BisectionMail(subject=clean(subject), body=clean("\n".join(_body(bisection, url.rstrip("/")))) + "\n")


def _body(bisection: Bisection, url: str) -> Iterator[str]:
    yield f"branch {bisection.branch}"
    yield f"job {bisection.job}"
    yield f"testid {bisection.testid}"
    yield ""
    for tree in bisection.trees:
        yield f"Tree: {tree.repository}" if tree.name == tree.repository else f"Tree: {tree.name}"
    yield ""
    yield from _verdict(bisection, url)
    yield ""
    if url:
        yield "For bisection revision-tuple graph see:"
        yield f"   {url}/bisections/{bisection.id}"
        yield "Revision IDs in each graph node refer, respectively, to the Trees above."
        yield ""
    yield _RULE
    yield from _course(bisection)
    last = next((probe for probe in reversed(bisection.probes) if probe.flight and probe.own), None)
    if last is not None:
        yield ""
        yield _RULE
        yield f"flight {last.flight} {bisection.branch} real-bisect [real-bisect]"
        if url:
            yield f"{url}/flights/{last.flight}"


def _verdict(bisection: Bisection, url: str) -> Iterator[str]:
    match bisection.state:
        case BisectionState.FOUND:
            yield "*** Found and reproduced problem changeset ***"
            yield ""
            yield from _found(bisection, url)
        case BisectionState.INCONCLUSIVE:
            suspects = blamed(bisection)
            yield "*** Inconclusive: one of these changesets, and no more can be told ***"
            yield ""
            yield f"  {bisection.reason}"
            yield ""
            for tree, commit in suspects[:MOST_SUSPECTS]:
                yield f"  {tree} {commit.id} {commit.subject}".rstrip()
            if len(suspects) > MOST_SUSPECTS:
                yield f"  (and {len(suspects) - MOST_SUSPECTS} more)"
        case BisectionState.INCONSISTENT:
            yield "*** Inconsistent: a changeset was found, but other results go against it ***"
            yield ""
            yield f"  {bisection.reason}"
        case BisectionState.NOT_REPRODUCIBLE:
            yield "*** Not reproducible: no changeset is to blame ***"
            yield ""
            yield f"  {bisection.reason}"
        case BisectionState.STOPPED | BisectionState.FAILED:
            yield "*** Not finished ***"
            yield ""
            yield f"  {bisection.reason}"
        case BisectionState.RUNNING:
            yield "Not finished yet."
            yield ""
            yield f"  {bisection.reason}"


def _found(bisection: Bisection, url: str) -> Iterator[str]:
    conclusion = bisection.conclusion
    [(tree, commit)] = blamed(bisection)
    place = next(at for at, one in enumerate(bisection.trees) if one.name == tree)
    yield f"  Bug is in tree:  {tree}"
    yield f"  Bug introduced:  {commit.id}"
    for node in conclusion["passing"]:
        yield f"  Bug not present: {node[place]}"
    for parent in conclusion.get("outside", ()):
        yield f"  Not tested:      {parent} (merged, but begun before the basis)"
    failing = tuple(conclusion["failing"])
    repro = [probe for probe in bisection.probes if probe.node == failing and probe.result is Result.FAIL]
    if repro and repro[-1].flight:
        yield f"  Last fail repro: {_flight(repro[-1].flight, url)}"
    yield f"  Confidence:      {100 * conclusion['confidence']:.2f}%"
    if conclusion.get("revert"):
        yield f"  Revert:          {conclusion['revert']}"
    yield ""
    yield ""
    for line in str(conclusion.get("message") or f"commit {commit.id}\n\n    {commit.subject}").splitlines():
        yield f"  {line}".rstrip()


def _flight(number: int, url: str) -> str:
    return f"{url}/flights/{number}" if url else f"flight {number}"


def _course(bisection: Bisection) -> Iterator[str]:
    """What was searched, every result, and what each result was for."""
    graph = bisection.graph
    if bisection.failing_flight and bisection.basis_flight:
        yield "Searching for failure / basis pass:"
        yield f" {bisection.failing_flight} fail / {bisection.basis_flight} ok."
        yield f"Failure / basis pass flights: {bisection.failing_flight} / {bisection.basis_flight}"
    yield f"Latest {_tuple(graph.failure)}"
    yield f"Basis pass {_tuple(graph.basis)}"
    yield f"Loaded {len(graph.nodes)} nodes in revision graph"
    yield "Searching for test results:"
    for probe in bisection.probes:
        if probe.flight and probe.result not in (Result.RUNNING, Result.ABORTED):
            yield f" {probe.flight} {_RESULTS.get(probe.result, probe.result.value)} {_tuple(probe.node)}"
    yield "Searching for interesting versions"
    names = {graph.basis: "basis pass", graph.failure: "basis failure"}
    names |= {tuple(node): "last pass" for node in bisection.conclusion.get("passing", ())}
    if failing := bisection.conclusion.get("failing"):
        names[tuple(failing)] = "first failure"
    seen: set[Node] = set()
    for probe in bisection.probes:
        if probe.result in (Result.PASS, Result.FAIL) and probe.flight:
            what = "Repro found" if probe.node in seen else "Result found"
            seen.add(probe.node)
            name = "the failure without it" if probe.purpose == REVERT else names.get(probe.node, probe.purpose)
            yield f" {what}: flight {probe.flight} ({probe.result.value}), for {name}"


def _tuple(node: Node) -> str:
    return " ".join(node)
