"""The plan and the queue: what is written down is what is shown, in words too, and nobody's text runs."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from conftest import Client
from sqlalchemy import event, update
from weblab import Demo

from lab.db import waits
from lab.db.flights import add_flight
from lab.db.tables import BlockageRow, HostRow
from lab.flights.model import JobSpec, Wait, Window
from lab.flights.status import Blessing

EVIL = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture
def planned(demo: Demo) -> int:
    """A flight of three jobs that wait: two are expected on emu1 one after the other, of one nobody can tell."""
    now = demo.lab.clock()

    def window(early: float, late: float) -> Window:
        return Window(p50=now + timedelta(minutes=early), p90=now + timedelta(minutes=late))

    with demo.lab.sessions.begin() as session:
        flight = add_flight(
            session,
            branch="b",
            intended=Blessing.PLAY,
            submitter="me",
            tenant=f"team {EVIL}",
            note="",
            jobs=[JobSpec(name=f"test-amd64-amd64-w{number}", recipe="test-xl") for number in (1, 2, 3)],
            now=now - timedelta(minutes=3),
        )
        told = {
            (flight, "test-amd64-amd64-w1"): Wait(
                kind="waiting_for_host",
                text=f"waiting for emu1 {EVIL}",
                place=1,
                start=window(5, 8),
                end=window(15, 30),
                hosts={"host": "emu1"},
            ),
            (flight, "test-amd64-amd64-w2"): Wait(
                kind="behind_in_share",
                text="1 ahead",
                place=2,
                start=window(15, 30),
                end=window(25, 60),
                hosts={"host": "emu1"},
            ),
        }
        waits.save_waits(session, told, now)
        session.add(
            BlockageRow(
                host="emu2", need="", begins=now + timedelta(minutes=1), ends=None, why=EVIL, actor="ops", created=now
            )
        )
    return flight


PAGES = ["/plan", "/plan?hours=0.25", "/plan?q=emu1", "/queue", "/queue?kind=behind_in_share", "/queue?page=2"]


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_run_no_foreign_text_and_have_no_inline_style(client: Client, planned: int, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "\x1b" not in answer.text
    assert " style=" not in answer.text
    part = client.get(f"{path}{'&' if '?' in path else '?'}fragment={'gantt' if 'plan' in path else 'list'}")
    assert part.text.lstrip().startswith('<div id="live"')
    assert part.text in answer.text or re.search(r'data-after="\d+"', part.text)


def test_the_plan_tells_in_words_what_it_shows_in_bars(client: Client, planned: int) -> None:
    page = client.get("/plan").text
    assert re.findall(r'id="g-(\w+)"', page) == ["emu0", "emu1", "emu2", "italia0"]
    table = page[page.index('id="as-table"') :]
    assert re.search(r"<td>emu1</td><td>runs</td>", table)
    assert len(re.findall(r"<td>emu1</td><td>expected</td>", table)) == 2
    assert re.search(r"<td>emu2</td><td>blocked by</td>", table)
    assert "nobody knows" in table
    assert page.count('class="bar-box k-projected"') >= 2
    assert 'class="tail k-projected"' in page
    assert "as likely too early as too late" in page


def test_a_bar_begins_at_now_or_later_when_it_is_expected(client: Client, planned: int) -> None:
    page = client.get("/plan?hours=1").text
    now = float(re.search(r'class="now-line" x1="([\d.]+)%"', page)[1])  # type: ignore[index]
    starts = [float(x) for x in re.findall(r'class="bar-box k-projected" x="([\d.]+)%"', page)]
    assert starts == sorted(starts)
    assert len(starts) == 2
    assert starts[0] == pytest.approx(now + 92 * 5 / 60, abs=0.3), "five minutes of an hour"


def test_the_plan_is_filtered_and_says_what_it_leaves_out(client: Client, planned: int) -> None:
    page = client.get("/plan?q=emu1").text
    assert re.findall(r'id="g-(\w+)"', page) == ["emu1"]
    assert "3 more hosts not shown" in page
    assert "No host matches" in client.get("/plan?q=nosuch").text


def test_the_queue_is_in_order_with_reason_time_and_tenant(client: Client, planned: int) -> None:
    page = client.get("/queue").text
    jobs = re.findall(r'id="q-\d+-([\w-]+)"', page)
    assert jobs[:2] == ["test-amd64-amd64-w1", "test-amd64-amd64-w2"]
    assert "test-amd64-amd64-w3" in jobs
    assert "no leader has looked at it yet" in page
    assert "nobody can tell" in page
    assert "at most" in page
    only = client.get("/queue?kind=behind_in_share").text
    assert re.findall(r'id="q-\d+-([\w-]+)"', only) == ["test-amd64-amd64-w2"]
    assert "Nobody waits here" in client.get("/queue?page=99").text


def test_a_waiting_job_tells_when_it_is_expected(client: Client, planned: int) -> None:
    page = client.get(f"/flights/{planned}/jobs/test-amd64-amd64-w1").text
    assert "expected to start" in page
    assert "place in the queue" in page
    other = client.get(f"/flights/{planned}/jobs/test-amd64-amd64-w3").text
    assert "expected to start" not in other


def test_the_interface_tells_the_same(client: Client, planned: int) -> None:
    plan = client.get("/api/v1/plan").json()
    hosts = {host["name"]: host["spans"] for host in plan["hosts"]}
    assert [span["kind"] for span in hosts["emu1"]] == ["job", "projected", "projected"]
    assert hosts["emu1"][1]["start"]["p50"] < hosts["emu1"][1]["start"]["p90"]
    assert plan["kinds"]["behind_in_share"] == 1
    lines = client.get("/api/v1/queue?limit=2").json()["queue"]
    assert [(line["job"], line["waiting"]["place"]) for line in lines] == [
        ("test-amd64-amd64-w1", 1),
        ("test-amd64-amd64-w2", 2),
    ]
    job = client.get(f"/api/v1/flights/{planned}/jobs/test-amd64-amd64-w1").json()
    assert job["waiting"]["kind"] == "waiting_for_host"
    assert job["waiting"]["hosts"] == {"host": "emu1"}
    for bad in ("hours=0", "hours=-1", "hours=x"):
        assert client.get(f"/api/v1/plan?{bad}").status_code == 400


def test_an_empty_lab_has_a_plan_and_a_queue(empty: Demo) -> None:
    with empty.lab.sessions.begin() as session:
        session.execute(update(HostRow).values(present=False))
    client = Client(empty)
    assert "This lab has no hosts" in client.get("/plan").text
    assert "Nobody waits" in client.get("/queue").text


def test_the_pages_ask_the_database_a_bounded_number_of_times(demo: Demo, client: Client, planned: int) -> None:
    asked: list[str] = []

    @event.listens_for(demo.engine, "before_cursor_execute")
    def count(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        asked.append(statement)

    for path in ("/plan", "/queue"):
        asked.clear()
        client.get(path)
        assert len([one for one in asked if one.startswith("SELECT")]) <= 14, path
