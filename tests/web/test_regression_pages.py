"""The pages of regressions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import Client
from weblab import Demo

from lab.db import regressions
from lab.flights.regression_life import Change, KnownIssue, Life, Regression

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def told(demo: Demo) -> None:
    now = demo.lab.clock()
    one = Regression(
        branch="xen-unstable", job="test-amd64-xsm", testid="xsm-denied", signature="s", sample=f"lost {EVIL}",
        life=Life.BLAMED, first_flight=3, last_flight=3, since=now, changed=now, owner=f"ann {EVIL}", bisection=1,
        culprit="c" * 40,
    )  # fmt: skip
    with demo.lab.sessions.begin() as session:
        regressions.save_change(session, Change(regression=one, old=None, reason=f"seen {EVIL}"), actor="gate", now=now)
        fixed = Regression(**{**one.__dict__, "testid": "guest-start", "life": Life.FIXED})
        regressions.save_change(session, Change(regression=fixed, old=None, reason="r"), actor="gate", now=now)
        regressions.add_issue(
            session,
            KnownIssue(
                id=0, job="test-*", testid="*", text="lost", owner="bob", reason=f"known {EVIL}",
                url="https://example.org", actor="ian", created=now, expires=now + timedelta(days=1),
            ),
        )  # fmt: skip


def test_the_list_has_the_open_ones_and_what_is_known(client: Client, told: None) -> None:
    page = client.get("/regressions").text
    assert "xsm-denied" in page
    assert "guest-start" not in page
    assert "Known issues" in page
    assert EVIL not in page
    assert "guest-start" in client.get("/regressions?all=1").text
    assert "xsm-denied" not in client.get("/regressions?branch=libvirt").text
    assert client.get("/regressions?before=0").status_code in (400, 422)


def test_a_regression_has_its_life(client: Client, told: None) -> None:
    page = client.get("/regressions/1").text
    for words in ("blamed", "c" * 40, "/bisections/1", "bob", "until", "ann &lt;script&gt;"):
        assert words in page
    assert EVIL not in page
    assert client.get("/regressions/99").status_code == 404
    view = client.get("/api/v1/regressions/1").json()
    assert (view["state"], view["known_issues"][0]["owner"]) == ("blamed", "bob")
    assert [one["regression"] for one in client.get("/api/v1/regressions").json()["regressions"]] == [1]
