"""What programs read: the JSON of flights, jobs and hosts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from factories import a_host

from lab.flights.model import Attempt, Flight, Job, Runvar, StepResult
from lab.flights.status import Blessing, JobStatus, StepStatus
from lab.flights.views import flight_view, host_view, job_view

T = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
STEP = StepResult(
    stepno=1, testid="boot", step="host-boot", status=StepStatus.FAIL, started=T, host="h1", evidence={"output": "é"}
)
JOB = Job(
    flight=7,
    name="j",
    recipe="r",
    status=JobStatus.FAIL,
    reason="boot: no",
    queued=T,
    runvars=(Runvar(name="arch", value="amd64"), Runvar(name="host", value="h1", synth=True)),
    attempts=(
        Attempt(id=1, number=1, status=JobStatus.BROKEN, hosts={"host": "h2"}, started=T),
        Attempt(id=2, number=2, status=JobStatus.FAIL, hosts={"host": "h1"}, started=T, steps=(STEP,)),
    ),
)
FLIGHT = Flight(
    id=7,
    branch="b",
    intended=Blessing.PLAY,
    blessing=Blessing.RUNNING,
    status=JobStatus.RUNNING,
    started=T,
    jobs=(JOB, Job(flight=7, name="k", recipe="r", status=JobStatus.QUEUED)),
)


def test_a_flight_counts_its_jobs_and_shows_the_newest_attempt_of_each() -> None:
    view = flight_view(FLIGHT)
    assert view["counts"] == {"fail": 1, "queued": 1}
    first, second = view["jobs"]
    assert (first["hosts"], first["attempts"], [step["testid"] for step in first["steps"]]) == (
        {"host": "h1"},
        2,
        ["boot"],
    )
    assert (second["hosts"], second["attempts"], second["steps"]) == ({}, 0, [])
    json.dumps(view)


def test_a_job_has_its_history_its_outputs_and_its_evidence() -> None:
    view = job_view(JOB)
    assert [attempt["status"] for attempt in view["history"]] == ["broken", "fail"]
    assert view["history"][1]["steps"][0]["evidence"] == {"output": "é"}
    assert view["outputs"] == ["host"]
    assert view["runvars"] == {"arch": "amd64", "host": "h1"}
    json.dumps(view)


def test_times_are_iso_8601_in_milliseconds_with_their_zone() -> None:
    assert job_view(JOB)["queued"] == "2026-01-02T03:04:05.678+00:00"
    view = host_view(a_host("h1"), holder="7.j", since=T.astimezone(timezone(timedelta(hours=1))))
    assert view["since"] == "2026-01-02T04:04:05.678+01:00"
    assert (view["flags"], view["holder"], view["state"]) == (["equiv-a", "hvm"], "7.j", "free")
