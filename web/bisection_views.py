"""A bisection in a line, and its range as a picture: newest commits above, untested stretches folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from lab.flights.bisection import Belief
from lab.flights.bisection_runs import Bisection, BisectionState, ProbeRun, Result, belief_of
from lab.flights.bisection_views import TITLES, Standing, blamed, standings
from lab.flights.revision_graph import Commit, Node, RevisionGraph
from web.times import seconds_of

SIGNS: Final[Mapping[BisectionState, str]] = {
    BisectionState.RUNNING: "running",
    BisectionState.FOUND: "pass",
    BisectionState.INCONCLUSIVE: "blocked",
    BisectionState.INCONSISTENT: "broken",
    BisectionState.NOT_REPRODUCIBLE: "starved",
    BisectionState.STOPPED: "aborted",
    BisectionState.FAILED: "broken",
}
"""The sign of a job's status that feels the same."""

RESULT_SIGNS: Final[Mapping[Result, str]] = {
    Result.RUNNING: "running",
    Result.PASS: "pass",
    Result.FAIL: "fail",
    Result.SKIP: "blocked",
    Result.BROKEN: "broken",
    Result.ABORTED: "aborted",
}

SHOW_ALL: Final = 14
"""A range of so few commits is shown whole."""
MOST_ROWS: Final = 160
"""A picture of more rows than this folds what was not tested, branches or not."""
ROW: Final = 30
LANE: Final = 20
LEFT: Final = 22
WIDTH: Final = 1080
_SUBJECT: Final = 74
_RUNS: Final = 4


@dataclass(frozen=True, kw_only=True)
class BisectionLine:
    """A bisection in the list, and at the head of its page."""

    id: int
    branch: str
    job: str
    testid: str
    state: str
    title: str
    sign: str
    final: bool
    reason: str
    runs: int
    actor: str
    started: datetime | None
    finished: datetime | None
    seconds: float


def bisection_line(bisection: Bisection, now: datetime) -> BisectionLine:
    """Sum a bisection up."""
    return BisectionLine(
        id=bisection.id,
        branch=bisection.branch,
        job=bisection.job,
        testid=bisection.testid,
        state=bisection.state.value,
        title=TITLES[bisection.state],
        sign=SIGNS[bisection.state],
        final=bisection.state.final,
        reason=bisection.reason,
        runs=sum(probe.own for probe in bisection.probes),
        actor=bisection.actor,
        started=bisection.started,
        finished=bisection.finished,
        seconds=seconds_of(bisection.started or now, bisection.finished, now),
    )


@dataclass(frozen=True, kw_only=True)
class RunMark:
    """One run at a commit, as it is told in the picture."""

    number: int
    flight: int | None
    sign: str
    word: str
    title: str
    x: int


@dataclass(frozen=True, kw_only=True)
class RangeRow:
    """A row: a commit, `folded` commits that nobody tested, or the basis. `share`: how probably it is to blame."""

    x: int
    y: int
    word: str = ""
    end: str = ""
    tree: str = ""
    commit: str = ""
    subject: str = ""
    author: str = ""
    folded: int = 0
    share: float = 0.0
    culprit: bool = False
    runs: tuple[RunMark, ...] = ()
    more: int = 0
    """runs that are not among `runs`"""


@dataclass(frozen=True, kw_only=True)
class RangePicture:
    """The range of a bisection; `lines` are SVG paths from each row to those it comes after."""

    width: int
    height: int
    text_x: int
    rows: tuple[RangeRow, ...]
    lines: tuple[str, ...]
    told: str
    """the picture in words"""


@dataclass(kw_only=True)
class _Entry:
    """One row to be: suspects in order, the newest last; none: the basis."""

    members: list[int] = field(default_factory=list)
    folded: bool = False
    lane: int = 0


def range_picture(bisection: Bisection) -> RangePicture:
    """Lay the range out: a lane for each branch of one tree, or one for each of several trees."""
    graph, belief, seen = bisection.graph, belief_of(bisection), standings(bisection)
    tested = {_place(graph, node): node for node in seen if node in graph.masks}
    entries = _folded(graph, {place for place in tested if place >= 0} | _blamed_places(bisection, graph))
    lines = _lay_out(graph, entries)
    lanes = 1 + max(entry.lane for entry in entries)
    text_x = LEFT + LANE * lanes
    runs = _runs(bisection, graph)
    culprits = _blamed_places(bisection, graph)
    weights = belief.weights()
    rows = [_row(graph, entry, number, belief, seen, runs, culprits, weights) for number, entry in enumerate(entries)]
    count = len(graph.suspects)
    told = f"{count} commit{'' if count == 1 else 's'}, {len([one for one in seen if one in graph.masks])} tested"
    return RangePicture(
        width=WIDTH,
        height=ROW * len(rows) + 8,
        text_x=text_x,
        rows=tuple(rows),
        lines=tuple(lines),
        told=told,
    )


def _place(graph: RevisionGraph, node: Node) -> int:
    """The newest suspect in a node; -1 for the basis."""
    return graph.masks[node].bit_length() - 1


def _blamed_places(bisection: Bisection, graph: RevisionGraph) -> set[int]:
    named = {(tree, commit.id) for tree, commit in blamed(bisection)}
    return {number for number, one in enumerate(graph.suspects) if (one.tree, one.commit.id) in named}


def _folded(graph: RevisionGraph, wanted: set[int]) -> list[_Entry]:
    """The rows from above: what is wanted, the newest, and between them stretches in which one follows another."""
    count = len(graph.suspects)
    shown = set(range(count)) if count <= SHOW_ALL else wanted | {count - 1}
    entries = _stretches(graph, shown, strict=len(graph.trees) == 1)
    if len(entries) > MOST_ROWS:
        entries = _stretches(graph, shown, strict=False)
        for entry in entries:
            entry.lane = -1  # branches are not told apart any more
    return [*entries, _Entry()]


def _stretches(graph: RevisionGraph, shown: set[int], *, strict: bool) -> list[_Entry]:
    before, after = _neighbours(graph)
    entries: list[_Entry] = []
    for number in reversed(range(len(graph.suspects))):
        last = entries[-1] if entries else None
        if number in shown or last is None or not last.folded:
            entries.append(_Entry(members=[number], folded=number not in shown))
            continue
        newer = last.members[0]
        if strict and (before[newer] != [number] or after[number] != [newer]):
            entries.append(_Entry(members=[number], folded=True))
        else:
            last.members.insert(0, number)
    for entry in entries:
        entry.folded = entry.folded and len(entry.members) > 1
    return entries


def _neighbours(graph: RevisionGraph) -> tuple[list[list[int]], list[list[int]]]:
    """The suspects directly before and after each; -1 is the basis."""
    places = {(one.tree, one.commit.id): number for number, one in enumerate(graph.suspects)}
    bases = {(history.tree, history.basis) for history in graph.histories}
    before: list[list[int]] = [[] for _ in graph.suspects]
    after: list[list[int]] = [[] for _ in graph.suspects]
    for number, one in enumerate(graph.suspects):
        for parent in dict.fromkeys(one.commit.parents):
            if (one.tree, parent) in places:
                before[number].append(places[one.tree, parent])
                after[places[one.tree, parent]].append(number)
            elif (one.tree, parent) in bases:
                before[number].append(-1)
    return before, after


def _lay_out(graph: RevisionGraph, entries: Sequence[_Entry]) -> list[str]:
    """Give each row its lane; returns the lines between them."""
    if len(graph.trees) > 1 or entries[0].lane < 0:
        for entry in entries:
            several = len(graph.trees) > 1 and entry.members
            entry.lane = graph.trees.index(graph.suspects[entry.members[-1]].tree) if several else 0
        return [
            _line(one.lane, one.lane, number, other.lane, number + 1)
            for number, (one, other) in enumerate(pairwise(entries))
        ]
    before, _ = _neighbours(graph)
    rows = {member: number for number, entry in enumerate(entries) for member in entry.members} | {-1: len(entries) - 1}
    lanes: list[tuple[int, int] | None] = []  # (the row a lane leads to, the row it comes from)
    lines = []
    for number, entry in enumerate(entries):
        coming = [lane for lane, going in enumerate(lanes) if going is not None and going[0] == number]
        entry.lane = coming[0] if coming else _free(lanes)
        for lane in coming:
            going = lanes[lane]
            assert going is not None
            lines.append(_line(entries[going[1]].lane, lane, going[1], entry.lane, number))
            lanes[lane] = None
        parents = dict.fromkeys(rows[parent] for parent in before[entry.members[0]]) if entry.members else {}
        for place, parent in enumerate(parents):
            lane = entry.lane if place == 0 else _free(lanes)
            lanes[lane] = (parent, number)
    return lines


def _free(lanes: list[tuple[int, int] | None]) -> int:
    if None not in lanes:
        lanes.append(None)
    return lanes.index(None)


def _x(lane: int) -> int:
    return LEFT + LANE * lane


def _y(row: int) -> int:
    return ROW * row + ROW // 2 + 4


def _line(lane: int, by: int, row: int, to_lane: int, to_row: int) -> str:
    """A path from a row to one below, down the lane `by`, with a bend where the lane changes."""
    half = ROW // 2
    x, y, end_x, end_y, way_x = _x(lane), _y(row), _x(to_lane), _y(to_row), _x(by)
    path = f"M{x} {y}"
    if way_x != x:
        path += f"C{x} {y + half} {way_x} {y + half} {way_x} {y + ROW}"
    if end_x != way_x:
        path += f"L{way_x} {end_y - ROW}" if end_y - ROW > y else ""
        return f"{path}C{way_x} {end_y - half} {end_x} {end_y - half} {end_x} {end_y}"
    return f"{path}L{end_x} {end_y}"


def _runs(bisection: Bisection, graph: RevisionGraph) -> dict[int, list[ProbeRun]]:
    runs: dict[int, list[ProbeRun]] = {}
    for probe in bisection.probes:
        if probe.node in graph.masks:
            runs.setdefault(_place(graph, probe.node), []).append(probe)
    return runs


def _row(
    graph: RevisionGraph,
    entry: _Entry,
    number: int,
    belief: Belief,
    seen: Mapping[Node, Standing],
    runs: Mapping[int, Sequence[ProbeRun]],
    culprits: set[int],
    weights: Sequence[float],
) -> RangeRow:
    if not entry.members:
        place, node, end = -1, graph.basis, "basis"
        commit = Commit(id=node[0], parents=(), subject="")
        tree, share = graph.trees[0], belief.older.weight
    else:
        place = entry.members[-1]
        node, commit, tree = graph.node_of(place), graph.suspects[place].commit, graph.suspects[place].tree
        end = "failure" if place == len(graph.suspects) - 1 else ""
        share = sum(weights[member] for member in entry.members)
    own = () if entry.folded else tuple(runs.get(place, ()))
    shown = own[-_RUNS:]
    return RangeRow(
        x=_x(entry.lane),
        y=_y(number),
        word="" if entry.folded else _word(graph, place, node, seen),
        end=end,
        tree=tree if len(graph.trees) > 1 else "",
        commit=commit.id,
        subject=commit.subject if len(commit.subject) <= _SUBJECT else f"{commit.subject[: _SUBJECT - 1]}…",
        author=commit.author,
        folded=len(entry.members) if entry.folded else 0,
        share=share,
        culprit=bool(culprits.intersection(entry.members)),
        runs=tuple(
            RunMark(
                number=run.number,
                flight=run.flight,
                sign=RESULT_SIGNS[run.result],
                word=run.result.value,
                title=f"{run.result.value}, {run.purpose}" + (f": {run.reason}" if run.reason else ""),
                x=WIDTH - 130 - 62 * (len(shown) - at),
            )
            for at, run in enumerate(shown)
        ),
        more=len(own) - len(shown),
    )


def _word(graph: RevisionGraph, place: int, node: Node, seen: Mapping[Node, Standing]) -> str:
    if node in seen:
        return seen[node].word
    others = [one for one in seen if one in graph.masks and _place(graph, one) == place]
    return seen[others[0]].word if others else ""
