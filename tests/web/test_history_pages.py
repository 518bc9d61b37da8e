"""The pages on how jobs and tests went: every run is there, leads to its step, and no foreign text runs."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from conftest import Client
from weblab import Demo, J, _run, _submit

from lab.flights.history import Run
from web.history_views import duration_chart, heat_map

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def many(demo: Demo) -> Demo:
    """Fifty more flights of one job on another branch; one of them fails."""
    now = demo.lab.clock()
    for number in range(50):
        start = now - timedelta(hours=100 - number)
        flight = _submit(demo, "many", start, ["test-amd64-xl"], "")
        end, at = (J.FAIL, "guest-console") if number == 48 else (J.PASS, "")
        _run(demo, flight, "test-amd64-xl", start, {"host": f"emu{number % 2 * 2}"}, end, at=at)
    return demo


def cells(page: str) -> list[str]:
    return re.findall(r'<a class="h-(\w+)" href="([^"]+)"', page)


def test_a_job_shows_every_attempt_by_host_and_flight(client: Client) -> None:
    page = client.get("/history/test-amd64-migrate-pair").text
    found = cells(page)
    # two attempts on two hosts each: the broken one leads to what broke, in its own attempt
    assert sorted(status for status, _ in found) == ["broken", "broken", "pass", "pass"]
    assert "/flights/3/jobs/test-amd64-migrate-pair?attempt=1#s-5" in {url for _, url in found}
    assert "emu2: dom0 did not come up" in page
    for _, url in found:
        assert client.get(url.replace("&amp;", "&")).status_code == 200


def test_a_test_shows_its_runs_alone(client: Client) -> None:
    page = client.get("/history/test-amd64-xsm/xsm-denied").text
    assert sorted(status for status, _ in cells(page)) == ["fail", "pass", "pass"]
    assert "passed 2 of 3" in page
    role = client.get("/history/test-amd64-migrate-pair/host-boot%2Fdst_host")
    assert role.status_code == 200
    assert cells(role.text)


def test_history_is_filtered_by_branch_and_paged_by_flight(many: Demo) -> None:
    client = Client(many)
    first = client.get("/history/test-amd64-xl?branch=many").text
    assert len(cells(first)) == 40
    assert "passed 49 of 50" in first
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    second = client.get(following[1].replace("&amp;", "&")).text
    assert len(cells(second)) == 10
    assert not set(cells(first)) & set(cells(second))
    assert len(cells(client.get("/history/test-amd64-xl?branch=xen-4.20-testing").text)) == 1
    assert "No run on branch <b>&lt;b&gt;</b>" in client.get("/history/test-amd64-xl?branch=<b>").text


def test_a_failed_step_has_its_reason_and_foreign_text_is_only_text(client: Client) -> None:
    page = client.get("/history/test-amd64-xsm").text
    assert "the denial was not seen: no avc line within 30 s" in page
    assert "\x1b" not in page
    for path in ("/history", "/history/test-amd64-xsm", "/history/test-amd64-xsm/xsm-denied"):
        page = client.get(path).text
        assert EVIL not in page
        assert " style=" not in page


@pytest.mark.parametrize(
    "path",
    ["/history/nosuch", f"/history/{EVIL}", "/history/test-amd64-xl/nosuch", "/history/..%2f..%2fetc", "/history/x/y"],
)
def test_what_never_ran_is_not_found(client: Client, path: str) -> None:
    for prefix in ("", "/api/v1"):
        answer = client.get(prefix + path)
        assert answer.status_code == 404
        assert EVIL not in answer.text or answer.headers["content-type"] == "application/json"


def test_bad_parameters_are_refused(client: Client) -> None:
    for query in ("before=0", "before=x", f"before={1 << 40}", "branch=" + "x" * 200):
        assert client.get(f"/history/test-amd64-xl?{query}").status_code == 400


def test_the_api_tells_the_same(many: Demo) -> None:
    client = Client(many)
    told = client.get("/api/v1/history/test-amd64-xl?branch=many").json()
    assert len(told["runs"]) == 50
    assert (told["rate"]["passed"], told["rate"]["failed"]) == (49, 1)
    low, high = told["rate"]["interval95"]
    assert low < 0.98 < high
    assert sum(one["passed"] for one in told["classes"]) == 49
    (bad,) = [run for run in told["runs"] if run["status"] == "fail"]
    assert bad["testid"] == "guest-console"
    one = client.get("/api/v1/history/test-amd64-xl/guest-console?branch=many").json()
    assert [run["status"] for run in one["runs"]].count("fail") == 1


def test_an_empty_lab_says_what_to_do(empty: Demo) -> None:
    client = Client(empty)
    assert "./run flight" in client.get("/history").text
    assert client.get("/history/test-amd64-xl").status_code == 404


def test_a_column_is_marked_where_the_revisions_change(demo: Demo) -> None:
    now = demo.lab.clock()
    runs = [
        Run(
            flight=number, branch="a" if number % 2 else "b", job="j", attempt=1, newest=True, status="pass",
            hosts=("h",), started=now, seconds=float(number),
        )
        for number in (6, 5, 4, 3, 2, 1)
    ]  # fmt: skip
    revisions = {1: "x", 3: "x", 5: "y", 2: "x", 4: "z"}
    fresh = {column.flight for column in heat_map(runs, {}, revisions).columns if column.fresh}
    assert fresh == {5, 4}
    chart = duration_chart(runs)
    assert chart is not None
    assert [dot.y for dot in chart.dots] == sorted(dot.y for dot in chart.dots)
    assert duration_chart(runs[:1]) is None
