from __future__ import annotations

import re
from datetime import timedelta

import pytest
from conftest import Client
from sqlalchemy import event
from weblab import Demo

from lab.db.flights import add_flight, load_flight, load_job
from lab.flights.model import JobSpec
from lab.flights.status import Blessing
from lab.flights.views import flight_view, job_view

JOB = "/flights/3/jobs/test-amd64-xsm"
PAGES = [
    "/",
    "/flights/latest",
    "/flights/1",
    JOB,
    "/flights/3/jobs/test-amd64-migrate-pair?attempt=1",
    "/hosts",
    "/hosts/emu1",
]


@pytest.mark.parametrize("path", [*PAGES, "/flights/3/jobs/test-amd64-xl-pvh", "/flights/3/jobs/test-amd64-xl-qcow2"])
def test_a_page_is_html_that_runs_no_foreign_text(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>alert" not in answer.text
    assert "\x1b" not in answer.text
    assert " style=" not in answer.text
    assert not re.search(r"<script(?! (type=\"module\" )?src=\"/static/)", answer.text)


@pytest.mark.parametrize("path", [*PAGES, "/nothing", "/static/lab.css", "/api/v1/hosts", f"{JOB}/log/1/9"])
def test_every_answer_carries_the_headers_that_keep_foreign_text_harmless(client: Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"].startswith(("default-src 'self'; ", "default-src 'none'; sandbox"))


def test_the_list_shows_flights_newest_first_and_by_branch(client: Client) -> None:
    assert re.findall(r'id="f-(\d+)"', client.get("/").text) == ["3", "2", "1"]
    assert re.findall(r'id="f-(\d+)"', client.get("/?branch=xen-4.20-testing").text) == ["2"]
    assert re.findall(r'id="f-(\d+)"', client.get("/?before=3").text) == ["2", "1"]
    assert "no flight on branch <b>&lt;b&gt;</b>" in client.get("/?branch=<b>").text


def test_a_long_list_has_pages(demo: Demo, client: Client) -> None:
    with demo.lab.sessions.begin() as session:
        for _ in range(60):
            spec = [JobSpec(name="j", recipe="test-xl")]
            add_flight(
                session,
                branch="many",
                intended=Blessing.PLAY,
                submitter="me",
                note="",
                jobs=spec,
                now=demo.lab.clock() - timedelta(hours=1),
            )
    first = client.get("/?branch=many").text
    assert len(re.findall(r'id="f-\d+"', first)) == 50
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    assert len(re.findall(r'id="f-\d+"', client.get(following[1].replace("&amp;", "&")).text)) == 10


def test_an_empty_lab_says_what_to_do(empty: Demo) -> None:
    client = Client(empty)
    assert "./run flight" in client.get("/").text
    assert client.get("/hosts").status_code == 200
    assert client.get("/flights/latest").status_code == 404


def test_the_grid_shows_every_job_and_step(client: Client) -> None:
    page = client.get("/flights/latest").text
    assert 'id="j-test-amd64-migrate-pair"' in page
    assert 'href="/flights/3/jobs/test-amd64-xsm#s-8"' in page
    assert "attempt 1, tried again" in page
    assert 'http-equiv="refresh"' in page
    assert 'http-equiv="refresh"' not in client.get("/flights/1").text
    assert 'data-events="/events?flight=3"' in page
    assert "data-events" not in client.get("/flights/1").text


def test_the_grid_can_be_filtered_by_address(client: Client) -> None:
    assert re.findall(r'id="j-([^"]+)"', client.get("/flights/3?q=XSM").text) == ["test-amd64-xsm"]
    bad = re.findall(r'id="j-([^"]+)"', client.get("/flights/3?only=bad").text)
    assert bad == ["test-amd64-xsm", "test-amd64-xl-vhd"]
    assert "No job of this flight matches" in client.get("/flights/3?q=zzz").text


def test_a_fragment_is_the_part_of_the_page_that_changes(client: Client) -> None:
    part = client.get("/flights/3?fragment=grid").text
    assert part.strip().startswith('<div id="live" data-part="grid"')
    assert "<html" not in part
    assert client.get("/flights/3?fragment=list").status_code == 400


def test_a_failed_step_shows_its_evidence_and_the_end_of_its_log(client: Client) -> None:
    page = client.get(JOB).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "12:00:11 + xl something 11" in page
    assert "no avc line" in page
    assert re.search(r'<td class="value"><code>4.20.0</code></td><td class="muted">a step', page)


def test_every_attempt_of_a_job_can_be_seen(client: Client) -> None:
    path = "/flights/3/jobs/test-amd64-migrate-pair"
    assert "dom0 did not come up" in client.get(f"{path}?attempt=1").text
    assert client.get(f"{path}?attempt=2").status_code == 200
    assert client.get(f"{path}?attempt=3").status_code == 404
    assert client.get(f"{path}?attempt=x").status_code == 400


def test_hosts_can_be_filtered(client: Client) -> None:
    assert re.findall(r'id="h-([^"]+)"', client.get("/hosts?q=maintenance").text) == ["italia0"]
    assert re.findall(r'id="h-([^"]+)"', client.get("/hosts?q=hvm+emulated").text) == ["emu0", "emu1"]
    page = client.get("/hosts/italia0").text
    assert "new disk on order" in page
    assert "ian" in page


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/flights/99",
        "/flights/-1",
        "/flights/3/jobs/none",
        "/hosts/none",
        "/hosts/none/console",
        "/hosts/none/console/stream",
        "/hosts/emu0/console",
        "/hosts/..%2f..%2flab.db/console",
        "/hosts/%2e%2e/console",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        f"{JOB}/log/1/99",
        f"{JOB}/log/9/1",
        f"{JOB}/files/1/9/..%2f..%2f..%2f..%2flab.db",
        f"{JOB}/files/1/9/%2e%2e",
        f"{JOB}/files/1/9/09.xsm-denied.log",
        f"{JOB}/files/1/8/09.xsm-denied.xl-dmesg.txt",
        "/flights/..%2f3",
    ],
)
def test_what_is_not_there_is_not_found(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text
    assert "SQLite format" not in answer.text


@pytest.mark.parametrize(
    "path", ["/?before=x", "/?before=0", "/flights/3?only=good", "/events?after=-1", f"{JOB}/log/x/1"]
)
def test_a_wrong_address_says_what_is_wrong(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert "That cannot be asked" in answer.text


def test_the_interface_for_programs_gives_the_words_of_the_command_line(demo: Demo, client: Client) -> None:
    with demo.lab.reads() as session:
        assert client.get("/api/v1/flights/latest").json() == flight_view(load_flight(session, 3))
        assert client.get(f"/api/v1{JOB}").json() == job_view(load_job(session, 3, "test-amd64-xsm"))
    listed = client.get("/api/v1/flights?limit=2").json()
    assert [flight["flight"] for flight in listed["flights"]] == [3, 2]
    assert listed["before"] == 2
    assert client.get("/api/v1/flights?before=2").json()["before"] is None
    assert [host["name"] for host in client.get("/api/v1/hosts").json()["hosts"]] == ["emu0", "emu1", "emu2", "italia0"]
    assert client.get("/api/v1/hosts/nobody").status_code == 404
    [change] = client.get("/api/v1/hosts/emu2").json()["health_history"]
    assert (change["old"], change["new"], change["actor"]) == ("good", "suspect", "judge")
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "/api/v1/flights/{flight}" in client.get("/api/v1/openapi.json").json()["paths"]


@pytest.mark.parametrize(("path", "status"), [("flights/9", 404), ("nothing", 404), ("flights?limit=0", 400)])
def test_errors_for_programs_are_json(client: Client, path: str, status: int) -> None:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == status
    assert answer.json()["error"]


def test_logs_and_kept_files_are_text_or_attachments(client: Client) -> None:
    log = client.get(f"{JOB}/log/1/9")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert "<script>alert(1)</script>" in log.text
    assert client.get(f"{JOB}/log/1/9?tail=10").text == log.text[-10:]
    page = client.get(f"{JOB}/files/1/9/09.xsm-denied.page.html")
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    data = client.get(f"{JOB}/files/1/9/09.xsm-denied.memory.bin")
    assert data.headers["content-disposition"] == 'attachment; filename="09.xsm-denied.memory.bin"'
    assert data.headers["content-type"] == "application/octet-stream"


def test_a_link_out_of_the_logs_leads_nowhere(demo: Demo, client: Client) -> None:
    folder = demo.lab.logs / "3" / "test-amd64-xsm" / "1"
    (folder / "09.xsm-denied.secret").symlink_to(demo.lab.settings.home / "lab.db")
    assert client.get(f"{JOB}/files/1/9/09.xsm-denied.secret").status_code == 404
    (folder / "09.xsm-denied.log").unlink()
    (folder / "09.xsm-denied.log").symlink_to(demo.lab.settings.home / "lab.db")
    assert client.get(f"{JOB}/log/1/9").status_code == 404
    assert client.get(JOB).status_code == 200


def test_a_part_of_a_console_is_served(client: Client) -> None:
    whole = client.get("/hosts/emu1/console").content
    assert client.get("/hosts/emu1/console?from=100&to=150").content == whole[100:150]
    assert client.get("/hosts/emu1/console?from=999999999").content == b""


def test_a_mistake_of_ours_is_a_page_without_its_insides(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*_args: object, **_more: object) -> None:
        raise TypeError("secret insides")

    monkeypatch.setattr("web.routes.hosts.list_hosts", mistake)
    answer = Client(demo).get("/hosts")
    assert answer.status_code == 500
    assert "secret insides" not in answer.text
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_a_page_asks_the_database_a_bounded_number_of_times(demo: Demo, client: Client) -> None:
    asked: list[str] = []

    @event.listens_for(demo.engine, "before_cursor_execute")
    def count(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        asked.append(statement)

    for path, most in (("/", 8), ("/flights/3", 17), (JOB, 9), ("/hosts", 4)):
        asked.clear()
        client.get(path)
        assert len([one for one in asked if one.startswith("SELECT")]) <= most, path
