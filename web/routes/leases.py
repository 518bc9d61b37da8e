"""Who has which host from when until when and why: a page, calendar files, and JSON."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from lab.db.flights import last_event
from lab.db.leases import blockages, ended_leases, going_leases, lease_history, load_lease
from lab.hosts.lease_views import blockage_view, change_view, lease_view
from lab.services.calendar import calendar_file
from web.deps import LabDep, PagesDep, SessionDep

router = APIRouter()
_ICS = "text/calendar; charset=utf-8"


@router.get("/leases", response_class=HTMLResponse, include_in_schema=False)
def show_leases(lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None) -> HTMLResponse:
    """Leases that are active or booked, blockages, and what ended last."""
    values = {
        "event": last_event(session),
        "leases": going_leases(session),
        "blockages": blockages(session, lab.clock()),
        "ended": ended_leases(session, limit=20),
    }
    return pages.render("leases/list.html", values, part="list", fragment=fragment)


@router.get("/leases.ics", include_in_schema=False)
def leases_ics(lab: LabDep, session: SessionDep) -> Response:
    """All leases, bookings and blockages as an iCalendar file."""
    return Response(calendar_file(session, lab), headers={"Content-Type": _ICS})


@router.get("/hosts/{name}.ics", include_in_schema=False)
def host_ics(name: str, lab: LabDep, session: SessionDep) -> Response:
    """Those of one host."""
    return Response(calendar_file(session, lab, host=name), headers={"Content-Type": _ICS})


@router.get("/api/v1/leases")
def api_leases(session: SessionDep) -> dict[str, Any]:
    """The leases that are active or booked."""
    return {"leases": [lease_view(lease) for lease in going_leases(session)]}


@router.get("/api/v1/leases/{number}")
def api_lease(number: int, session: SessionDep) -> dict[str, Any]:
    """A lease with its history."""
    lease = load_lease(session, number)
    history = [change_view(one.at, one.what, one.actor, one.detail) for one in lease_history(session, lease.id)]
    return {**lease_view(lease), "history": history}


@router.get("/api/v1/blockages")
def api_blockages(lab: LabDep, session: SessionDep) -> dict[str, Any]:
    """The blockages that are not over."""
    return {"blockages": [blockage_view(one) for one in blockages(session, lab.clock())]}
