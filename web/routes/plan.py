"""The plan page (hosts × time) and the queue page (who waits, why, until when); the same as JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from lab.db.flights import last_event
from lab.db.waits import list_queue
from lab.services.show_plan import plan_json, queue_json, show_plan
from web.deps import LabDep, PagesDep, SessionDep
from web.plan_views import AHEADS, choose_ahead, gantt
from web.routes.api import WaitModel, WindowModel
from web.times import eta_of, job_url

PAGE = 100
FAR = timedelta(days=7)
router = APIRouter()

Hours = Annotated[float | None, Query(gt=0, le=24 * 31)]


@router.get("/plan", response_class=HTMLResponse, include_in_schema=False)
def show_plan_page(
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    hours: Hours = None,
    q: Annotated[str, Query(max_length=64)] = "",
    fragment: str | None = None,
) -> HTMLResponse:
    """Hosts × time: who has each host, what is booked, who is expected next, and what stands against that."""
    event = last_event(session)
    view = show_plan(session, lab, ahead=timedelta(hours=hours) if hours else FAR)
    values = {
        "event": event,
        "view": view,
        "gantt": gantt(view, hours=hours or choose_ahead(view), words=q.lower().split()),
        "hours": hours,
        "aheads": AHEADS,
        "q": q,
    }
    return pages.render("plan/show.html", values, part="gantt", fragment=fragment)


@router.get("/queue", response_class=HTMLResponse, include_in_schema=False)
def show_queue_page(
    lab: LabDep,
    session: SessionDep,
    pages: PagesDep,
    tenant: Annotated[str, Query(max_length=128)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    fragment: str | None = None,
) -> HTMLResponse:
    """Who waits, why, and when it is expected to start."""
    event = last_event(session)
    now = lab.clock()
    view = show_plan(session, lab, ahead=timedelta())
    found = list_queue(session, tenant=tenant, kind=kind, limit=PAGE + 1, offset=(page - 1) * PAGE)
    values = {
        "event": event,
        "view": view,
        "lines": [(line, job_url(line.flight, line.job), eta_of(line.wait, now)) for line in found[:PAGE]],
        "more": len(found) > PAGE,
        "page": page,
        "tenant": tenant,
        "kind": kind,
    }
    return pages.render("queue/list.html", values, part="list", fragment=fragment)


class SpanModel(BaseModel):
    """A stretch of a host's time: job, cleaning, lease, booking, blockage, shut or projected; `end` null: unknown."""

    kind: str
    start: WindowModel
    end: WindowModel | None
    who: str
    why: str
    role: str


class HostPlanModel(BaseModel):
    """A host and its time, in order."""

    name: str
    state: str
    health: str
    spans: list[SpanModel]


class TenantModel(BaseModel):
    """A tenant: host-seconds recently used (older use counts less), share, jobs waiting, hosts held now."""

    tenant: str
    used_host_s: float
    share: float
    waiting: int
    holding: int


class PlanModel(BaseModel):
    """The plan of the lab; `kinds` counts those who wait by kind of reason."""

    now: str
    waiting: int
    kinds: dict[str, int]
    tenants: list[TenantModel]
    hosts: list[HostPlanModel]


class QueueLineModel(BaseModel):
    """A queued job; `waiting` is null as long as no leader has looked at it."""

    flight: int
    job: str
    recipe: str
    tenant: str
    priority: int
    queued: str
    waiting: WaitModel | None


class QueueModel(BaseModel):
    """Who waits: first those that wait for hosts, by their place."""

    queue: list[QueueLineModel]


@router.get("/api/v1/plan", response_model=PlanModel)
def api_plan(session: SessionDep, lab: LabDep, hours: Hours = None) -> dict[str, Any]:
    """Who has which host, what is booked, and who is expected next."""
    return plan_json(show_plan(session, lab, ahead=timedelta(hours=hours) if hours else FAR))


@router.get("/api/v1/queue", response_model=QueueModel)
def api_queue(
    session: SessionDep,
    tenant: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> dict[str, Any]:
    """Who waits, why, and when it is expected to start."""
    return {"queue": [queue_json(line) for line in list_queue(session, tenant=tenant, limit=limit, offset=offset)]}
