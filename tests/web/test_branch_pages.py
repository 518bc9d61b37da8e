"""The release manager's pages: how branches stand, why a gate decided as it did, badges."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from conftest import Client
from gate_tales import EVIL, NEW, OLD, tell_gates
from hypothesis import given
from hypothesis import strategies as st
from weblab import Demo

from web.badges import COLOURS, badge


@pytest.fixture
def told(demo: Demo) -> dict[str, int]:
    return tell_gates(demo)


def row_of(page: str, branch: str) -> str:
    found = re.search(rf'<tr id="b-{re.escape(branch)}".*?(?=<tr id="b-|</table>)', page, re.DOTALL)
    assert found is not None, branch
    return found[0]


def test_the_board_shows_how_each_branch_stands(client: Client, told: dict[str, int]) -> None:
    for path in ("/", "/branches"):
        page = client.get(path).text
        for branch, word in (
            ("xen-unstable", "held"),
            ("xen-4.20-testing", "open"),
            ("stopped", "held by hand"),
            ("broken", "cannot decide"),
            ("going", "testing"),
        ):
            assert f"</svg>{word}</span>" in row_of(page, branch)
        held = row_of(page, "xen-unstable")
        assert OLD[:12] in held  # let through nine days ago
        assert NEW[:12] in held
        assert "test-amd64-xsm <b>xsm-denied</b>" in held
        assert "at least" not in held  # it passed in flight 1
        assert 'href="/flights/3">3</a>)' in held
        assert 'href="/flights/3">flight 3</a> <span class="num">4 / 6' in held
        assert f'href="/gates/{told["held"]}"' in held
        assert "guest-stop" in held  # waived, until in two days
        assert "xsm-denied" not in row_of(page, "xen-4.20-testing")


def test_a_lab_without_gates_keeps_its_landing_page(client: Client, empty: Demo) -> None:
    page = client.get("/").text
    assert "<h1>Flights</h1>" in page
    assert 'id="f-3"' in page
    assert "lab gate run" in client.get("/branches").text
    assert client.get("/branches/xen-unstable").status_code == 404


def test_flights_of_one_branch_have_no_board(client: Client, told: dict[str, int]) -> None:
    assert 'id="b-' not in client.get("/?branch=xen-unstable").text
    assert 'id="f-3"' in client.get("/").text


def test_a_branch_shows_its_runs_and_what_people_decided(client: Client, told: dict[str, int]) -> None:
    page = client.get("/branches/xen-unstable").text
    assert re.findall(r'href="/gates/(\d+)"', page) == [str(told["held"]), str(told["pushed"])]
    assert "expired" in page
    assert re.search(r"ended <time.*?by ian", page)
    assert client.get("/branches/nosuch").status_code == 404
    assert client.get("/branches/xen-unstable?before=0").status_code == 400
    part = client.get("/branches/xen-unstable?fragment=branch").text
    assert part.startswith('<div id="live"')


def test_a_run_tells_why_and_what_would_have_let_it_pass(client: Client, told: dict[str, int]) -> None:
    page = client.get(f"/gates/{told['held']}").text
    assert "It would have passed without this failure" in page
    assert [page.index(title) for title in ("Blocking", "Failing intermittently", "Not blocking")] == sorted(
        page.index(title) for title in ("Blocking", "Failing intermittently", "Not blocking")
    )
    assert 'compared with <a href="/flights/1">1</a>' in page
    assert 'href="/flights/3/jobs/test-amd64-xsm#s-8"' in page
    assert "/compare/1/3" in page
    opened = client.get(f"/gates/{told['open']}").text
    assert "would have passed" not in opened
    assert "There is no verdict yet" in client.get(f"/gates/{told['going']}").text
    for wrong, status in (
        ("/gates/999", 404),
        ("/gates/x", 400),
        ("/gates/99999999999999999999", 404),
        ("/gates/-1", 404),
    ):
        assert client.get(wrong).status_code == status


def test_foreign_text_is_only_text(client: Client, told: dict[str, int]) -> None:
    for path in ("/", "/branches", "/branches/xen-unstable", "/branches/stopped", f"/gates/{told['held']}"):
        page = client.get(path).text
        assert EVIL not in page
        assert " style=" not in page
    assert "&lt;script&gt;alert(1)" in client.get("/branches/xen-unstable").text


def test_the_api_tells_the_same(client: Client, told: dict[str, int]) -> None:
    lines = {line["branch"]: line for line in client.get("/api/v1/branches").json()["branches"]}
    assert {name: line["state"] for name, line in lines.items()} == {
        "xen-unstable": "held",
        "xen-4.20-testing": "open",
        "stopped": "stopped",
        "broken": "broken",
        "going": "testing",
    }
    (blocker,) = lines["xen-unstable"]["blockers"]
    assert (blocker["job"], blocker["testid"], blocker["since_flight"]) == ("test-amd64-xsm", "xsm-denied", 3)
    one = client.get("/api/v1/branches/xen-unstable").json()
    assert [run["gate"] for run in one["runs"]] == [told["held"], told["pushed"]]
    assert len(one["all_overrides"]) == 3
    gate = client.get(f"/api/v1/gates/{told['held']}").json()
    assert gate["would_pass_without"] == [{"job": "test-amd64-xsm", "testid": "xsm-denied"}]
    assert client.get("/api/v1/gates/999").status_code == 404
    assert client.get("/api/v1/branches/nosuch").status_code == 404


def test_a_badge_can_be_kept_and_shown_elsewhere(client: Client, told: dict[str, int]) -> None:
    answer = client.get("/badge/xen-unstable.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert ">held<" in answer.text
    again = client.get("/badge/xen-unstable.svg", **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/badge/xen-4.20-testing.svg", **{"If-None-Match": answer.headers["etag"]}).status_code == 200
    assert OLD[:12] in client.get("/badge/xen-unstable/tested.svg").text
    unknown = client.get("/badge/<b>.svg")
    assert unknown.status_code == 404
    assert "<b>" not in unknown.text


@given(st.text(max_size=90), st.text(max_size=90), st.sampled_from(sorted(COLOURS)))
def test_a_badge_is_one_picture_whatever_it_says(label: str, value: str, kind: str) -> None:
    picture = ET.fromstring(badge(label, value, kind))
    assert {part.tag.rpartition("}")[2] for part in picture.iter()} <= {"svg", "title", "clipPath", "rect", "g", "text"}
