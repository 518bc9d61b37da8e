"""Leases on the web: what people wrote reaches neither HTML nor a calendar file as anything but text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import Client
from icalendar import Calendar
from weblab import Demo

from lab.db.leases import add_blockage, add_lease
from lab.errors import ConfigError
from lab.hosts.calendar import Blockage
from lab.hosts.leases import PersonLease, check_line

# The services refuse the newline; here it was written by somebody else.
EVIL = "x\r\nEND:VEVENT\r\nBEGIN:VALARM,;\\ <script>alert(1)</script>"


@pytest.fixture
def told(demo: Demo) -> Demo:
    now = demo.lab.clock()
    with demo.lab.sessions.begin() as session:
        add_lease(
            session,
            PersonLease(id=0, holder="ann", why=EVIL, length=timedelta(hours=1), created=now, host="emu0", begins=now,
                        ends=now + timedelta(hours=1)),
        )  # fmt: skip
        add_blockage(session, Blockage(id=0, why=EVIL, actor="ian", begins=now, host="emu1"), now=now)
    return demo


def test_foreign_text_is_only_text(told: Demo) -> None:
    client = Client(told)
    page = client.get("/leases")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    for path, events in (("/leases.ics", 2), ("/hosts/emu0.ics", 1), ("/hosts/emu1.ics", 1)):
        answer = client.get(path)
        assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
        assert answer.text.count("\r\nBEGIN:VEVENT") == answer.text.count("\r\nEND:VEVENT") == events
        assert "BEGIN:VALARM" not in {line.strip() for line in answer.text.splitlines()}
        assert "<script>alert(1)</script>" in Calendar.from_ical(answer.text).walk("VEVENT")[0]["description"]
    with pytest.raises(ConfigError):
        check_line("reason", EVIL)


def test_the_api_tells_leases_and_says_no(told: Demo) -> None:
    client = Client(told)
    [lease] = client.get("/api/v1/leases").json()["leases"]
    assert (lease["host"], lease["holder"], lease["why"]) == ("emu0", "ann", EVIL)
    assert client.get(f"/api/v1/leases/{lease['lease']}").json()["history"] == []
    assert len(client.get("/api/v1/blockages").json()["blockages"]) == 1
    for path in ("/api/v1/leases/99", "/api/v1/leases/99999999999999999999", "/hosts/nosuch.ics"):
        assert client.get(path).status_code == 404
    assert client.get("/api/v1/leases/x").status_code == 400
