"""The pages on bisections: what they show, and that nothing in a picture is lost or runs as a script."""

from __future__ import annotations

import re

import pytest
from bisection_tales import EVIL, a_history, tell_bisections
from bisection_trials import bisect, graphs, with_culprit
from conftest import Client
from hypothesis import given
from hypothesis import strategies as st
from weblab import Demo

from lab.flights.bisection import Outcome
from lab.flights.bisection_runs import Bisection, BisectionState, MovingTree, ProbeRun, Result
from lab.flights.revision_graph import RevisionGraph, make_graph
from web.bisection_views import MOST_ROWS, range_picture


@pytest.fixture
def told(demo: Demo) -> dict[str, int]:
    return tell_bisections(demo)


def test_the_list_and_each_page_show_themselves(client: Client, told: dict[str, int]) -> None:
    page = client.get("/bisections")
    assert page.status_code == 200
    for number in told.values():
        assert f'href="/bisections/{number}"' in page.text
        assert client.get(f"/bisections/{number}").status_code == 200
    assert client.get("/bisections?branch=nowhere").text.count("/bisections/") == 0
    for wrong, status in (("/bisections/999", 404), ("/bisections/x", 400), ("/bisections/99999999999999999999", 404)):
        assert client.get(wrong).status_code == status


def test_a_bisection_tells_whom_it_blames_and_folds_what_was_not_tested(client: Client, told: dict[str, int]) -> None:
    page = client.get(f"/bisections/{told['found']}").text
    culprit = a_history("xen", 61).commits[37]
    assert "The culprit" in page
    assert page.count(culprit.id) >= 2
    assert "reverting it mends the failure" in page
    assert re.search(r"… 2\d commits", page)
    assert page.count('class="band"') == 1
    skipped = client.get(f"/bisections/{told['skipped']}").text
    assert "One of these" in skipped
    assert skipped.count('class="band"') == 4


def test_a_flight_leads_to_the_bisections_that_use_it(client: Client, told: dict[str, int]) -> None:
    page = client.get("/flights/3").text
    for number in sorted(told.values())[:5]:
        assert f'href="/bisections/{number}"' in page
    assert 'href="/bisections/' not in client.get("/flights/2").text


def test_foreign_text_is_only_text(client: Client, told: dict[str, int]) -> None:
    for path in ("/bisections", *(f"/bisections/{number}" for number in told.values())):
        page = client.get(path).text
        assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in client.get(f"/bisections/{told['found']}").text


def test_what_changes_is_a_fragment_that_listens_until_it_has_ended(client: Client, told: dict[str, int]) -> None:
    for name, live in (("running", True), ("found", False)):
        part = client.get(f"/bisections/{told[name]}?fragment=bisection").text
        assert part.startswith('<div id="live"')
        assert ('data-events="/events?kinds=bisection"' in part) is live
    assert "<html" not in client.get("/bisections?fragment=list").text


def test_the_api_tells_the_same(client: Client, told: dict[str, int]) -> None:
    listed = client.get("/api/v1/bisections").json()["bisections"]
    assert [one["bisection"] for one in listed] == sorted(told.values(), reverse=True)
    one = client.get(f"/api/v1/bisections/{told['running']}").json()
    assert one["state"] == "running"
    assert sum(suspect["probability"] for suspect in one["suspects"]) <= 1
    assert {probe["result"] for probe in one["probes"]} >= {"pass", "fail", "running"}
    assert client.get("/api/v1/bisections/77").status_code == 404


def shown(graph: RevisionGraph, probes: list[ProbeRun]) -> Bisection:
    trees = tuple(MovingTree(name=tree, repository=tree, builds=("build",)) for tree in graph.trees)
    return Bisection(
        id=1, branch="b", job="j", testid="t", state=BisectionState.RUNNING, template=(), trees=trees,
        histories=graph.histories, probes=tuple(probes),
    )  # fmt: skip


@given(st.one_of(graphs(most=30), graphs(trees=2, most=12)), st.data())
def test_a_picture_loses_no_commit_and_no_run(graph: RevisionGraph, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(0, len(graph.suspects) - 1))
    seen = bisect(graph, with_culprit(graph, culprit)).observations
    results = {Outcome.PASS: Result.PASS, Outcome.FAIL: Result.FAIL, Outcome.SKIP: Result.SKIP}
    probes = [
        ProbeRun(number=number, flight=number, node=one.node, purpose="search", result=results[one.outcome])
        for number, one in enumerate(seen, 1)
    ]
    picture = range_picture(shown(graph, probes))
    assert sum(row.folded or 1 for row in picture.rows) == len(graph.suspects) + 1
    assert sum(len(row.runs) + row.more for row in picture.rows) == len(probes)
    assert [row.y for row in picture.rows] == sorted({row.y for row in picture.rows})
    assert sum(row.share for row in picture.rows) <= 1 + 1e-9
    assert picture.rows[0].end == "failure"
    assert picture.rows[-1].end == "basis"
    for line in picture.lines:  # a way leads from a row to one below it
        numbers = [int(number) for number in re.findall(r"-?\d+", line)]
        assert numbers[1] < numbers[-1]


def test_a_long_history_of_many_branches_stays_a_picture() -> None:
    graph = make_graph([a_history("xen", 2000, merges=True)])
    picture = range_picture(shown(graph, []))
    assert len(picture.rows) <= MOST_ROWS
    assert sum(row.folded or 1 for row in picture.rows) == len(graph.suspects) + 1
