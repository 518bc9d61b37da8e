"""Pages on hosts: how they stand, who holds them, and what their consoles say."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lab.db.flights import last_event
from lab.db.history import runs_on
from lab.db.hosts import HostView, health_history, list_hosts, load_host
from lab.db.leases import active_lease
from web.deps import LabDep, PagesDep, SessionDep
from web.host_views import holder_url, host_jobs

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)


def _matches(view: HostView, words: list[str]) -> bool:
    host = view.host
    known = {host.name, host.arch, host.state.value, host.health.value, view.holder or "", *host.flags}
    return all(any(word in text.lower() for text in known) for word in words)


@router.get("/hosts")
def show_hosts(
    session: SessionDep,
    pages: PagesDep,
    q: Annotated[str, Query(max_length=64)] = "",
    fragment: str | None = None,
) -> HTMLResponse:
    """All hosts, or those that match every word of `q` (name, architecture, state, health, flag, holder)."""
    event = last_event(session)
    views = list_hosts(session)
    shown = [(view, holder_url(view.holder)) for view in views if _matches(view, q.lower().split())]
    values = {"event": event, "hosts": shown, "total": len(views), "q": q}
    return pages.render("hosts/list.html", values, part="list", fragment=fragment)


@router.get("/hosts/{name}")
def show_host(
    name: str, lab: LabDep, session: SessionDep, pages: PagesDep, fragment: str | None = None
) -> HTMLResponse:
    """One host, with its recent jobs and the changes of its health."""
    event = last_event(session)
    view = load_host(session, name)
    values = {
        "event": event,
        "view": view,
        "holder_url": holder_url(view.holder),
        "lease": active_lease(session, name),
        "jobs": host_jobs(runs_on(session, name), lab.clock()),
        "history": health_history(session, name),
        "evidence": lambda change: [(job, holder_url(job)) for job in change.evidence.get("jobs", ())],
    }
    return pages.render("hosts/show.html", values, part="host", fragment=fragment)
