"""The JSON interface: the same words as on the command line."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from lab.db.flights import list_flights, load_flight, resolve_flight
from lab.db.hosts import health_history, list_hosts, load_host
from lab.flights.views import flight_summary, flight_view, health_change_view, host_view, job_view
from web.deps import LabDep, SessionDep
from web.routes.jobs import find_job

router = APIRouter()


class StepModel(BaseModel):
    """One step; times are ISO 8601 in UTC."""

    stepno: int
    testid: str
    step: str
    status: str
    started: str
    finished: str | None
    host: str | None
    reason: str
    log: str


class StepWithEvidence(StepModel):
    """One step and what was seen when it did not pass (untrusted text, by label)."""

    evidence: dict[str, str]


class AttemptModel(BaseModel):
    """One try at a job."""

    number: int
    status: str
    hosts: dict[str, str]
    worker: str
    started: str
    finished: str | None
    reason: str
    steps: list[StepWithEvidence]


class WindowModel(BaseModel):
    """A moment in the future: even odds at `p50`, nine in ten by `p90`."""

    p50: str
    p90: str


class WaitModel(BaseModel):
    """Why a job waits, and when and where (by role) it is expected to run; null where nobody can tell."""

    kind: str
    text: str
    data: dict[str, Any]
    place: int | None
    start: WindowModel | None
    end: WindowModel | None
    hosts: dict[str, str]
    updated: str | None


class JobModel(BaseModel):
    """A job of a flight; `steps` and `hosts` (by role) are those of its newest attempt."""

    name: str
    recipe: str
    status: str
    reason: str
    waiting: WaitModel | None
    hosts: dict[str, str]
    attempts: int
    runvars: dict[str, str]
    steps: list[StepModel]


class JobDetailModel(JobModel):
    """A job with all its attempts; `outputs` are the runvars that steps wrote."""

    flight: int
    queued: str | None
    outputs: list[str]
    history: list[AttemptModel]


class FlightSummaryModel(BaseModel):
    """A flight; `counts` says how many jobs stand how."""

    flight: int
    branch: str
    status: str
    blessing: str
    intended: str
    submitter: str
    tenant: str
    note: str
    started: str
    finished: str | None
    counts: dict[str, int]


class CoverageModel(BaseModel):
    """Of the test jobs of an architecture: how many came to a verdict, how many still may, and the share demanded."""

    arch: str
    ran: int
    left: int
    jobs: int
    demanded: float
    enough: bool


class FlightModel(FlightSummaryModel):
    """A flight with its jobs; `unmet` are the demands on its coverage that it does not meet, as sentences."""

    coverage: list[CoverageModel]
    unmet: list[str]
    jobs: list[JobModel]


class FlightListModel(BaseModel):
    """A page of flights, newest first; ask again with `before` for the next one (null: this was the last)."""

    flights: list[FlightSummaryModel]
    before: int | None


class HostModel(BaseModel):
    """A host and who holds it."""

    name: str
    arch: str
    flags: list[str]
    properties: dict[str, str | bool | int | float]
    state: str
    health: str
    health_reason: str
    holder: str | None
    since: str | None


class HealthChangeModel(BaseModel):
    """A change of a host's health: who made it (`lab`: a rule), why, and the evidence."""

    at: str
    old: str
    new: str
    reason: str
    actor: str
    evidence: dict[str, Any]


class HostDetailModel(HostModel):
    """A host with the history of its health, the newest change first."""

    health_history: list[HealthChangeModel]


class HostListModel(BaseModel):
    """All hosts, by name."""

    hosts: list[HostModel]


@router.get("/api/v1/flights", response_model=FlightListModel)
def api_flights(
    session: SessionDep,
    branch: Annotated[str | None, Query(max_length=128)] = None,
    before: Annotated[int | None, Query(ge=1, lt=1 << 31)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The newest flights."""
    flights = list_flights(session, branch=branch, before=before, limit=limit + 1)
    more = flights[limit - 1].id if len(flights) > limit else None
    return {"flights": [flight_summary(flight) for flight in flights[:limit]], "before": more}


@router.get("/api/v1/flights/{flight}", response_model=FlightModel)
def api_flight(flight: str, lab: LabDep, session: SessionDep) -> dict[str, Any]:
    """A flight by its number, or `latest`."""
    return flight_view(load_flight(session, resolve_flight(session, flight)), lab.coverage)


@router.get("/api/v1/flights/{flight}/jobs/{name}", response_model=JobDetailModel)
def api_job(flight: str, name: str, session: SessionDep) -> dict[str, Any]:
    """A job with all its attempts and their evidence."""
    return job_view(find_job(session, flight, name))


@router.get("/api/v1/hosts", response_model=HostListModel)
def api_hosts(session: SessionDep) -> dict[str, Any]:
    """The hosts of the lab."""
    return {"hosts": [host_view(view.host, holder=view.holder, since=view.since) for view in list_hosts(session)]}


@router.get("/api/v1/hosts/{name}", response_model=HostDetailModel)
def api_host(name: str, session: SessionDep) -> dict[str, Any]:
    """A host with the history of its health."""
    view, history = load_host(session, name), health_history(session, name)
    shown = host_view(view.host, holder=view.holder, since=view.since)
    return shown | {"health_history": [health_change_view(change) for change in history]}


@router.get("/healthz", include_in_schema=False)
def healthz(lab: LabDep) -> JSONResponse:
    """200 while the database answers."""
    try:
        with lab.reads() as session:
            session.execute(select(1))
    except SQLAlchemyError:
        return JSONResponse({"status": "the database does not answer"}, status_code=503)
    return JSONResponse({"status": "ok"})
