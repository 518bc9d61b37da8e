"""The report of a flight in the browser, as a mail and as JSON."""

from __future__ import annotations

from dataclasses import replace

from conftest import Client
from gate_tales import EVIL, NEW, tell_gates
from weblab import Demo

from lab.labfile import BranchSettings


def test_a_flight_that_a_gate_judged(demo: Demo) -> None:
    tell_gates(demo)
    branch = BranchSettings(
        url="https://example.org/xen.git", ref="staging", push_url="/srv/out.git", push_ref="master"
    )
    demo.lab = replace(demo.lab, branches={"xen-unstable": branch})
    client = Client(demo)
    page = client.get("/flights/3/report")
    assert page.status_code == 200
    text = page.text
    assert "Regressions :-(" in text
    assert "REGR. vs. 1" in text
    assert NEW in text
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert text.index("blocking, including") < text.index("intermittently") < text.index("but are not blocking")
    assert 'href="/flights/3/report"' in client.get("/flights/1").text.replace("/flights/1/", "/flights/3/")
    told = client.get("/api/v1/flights/3/report").json()
    assert [one["section"] for one in told["failures"]] == ["blocking", "intermittent", "nonblocking"]
    assert told["push"]["pushed"] is False
    mail = client.get("/flights/3/report.eml")
    assert mail.headers["content-type"].startswith("message/rfc822")
    assert "\n    xen-unstable:test-amd64-xsm:xsm-denied:fail:regression\n" in mail.text
    assert "\nSubject: [xen-unstable test] 3: regressions - trouble: fail/pass/queued/running\n" in mail.text


def test_a_flight_that_nobody_judged(client: Client, demo: Demo) -> None:
    page = client.get("/flights/2/report").text
    assert "Not compared with a baseline." in page
    assert client.get("/flights/999/report").status_code == 404
    assert client.get("/api/v1/flights/0/report").status_code in (404, 422, 400)
