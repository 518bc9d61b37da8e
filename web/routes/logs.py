"""Logs, kept files and consoles as plain text, and everything that is sent while it happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lab.db.hosts import load_host
from lab.errors import NotFoundError
from web.deps import LabDep, SessionDep, StreamsDep
from web.files import console_file, inside, send, step_files, step_log
from web.routes.jobs import find_attempt, find_job, find_step
from web.streams import EventStream, follow_events, follow_file, resume_point

Offset = Annotated[int | None, Query(ge=0, lt=1 << 50)]
router = APIRouter(default_response_class=Response, include_in_schema=False)


@router.get("/events")
async def stream_events(
    request: Request,
    lab: LabDep,
    streams: StreamsDep,
    flight: Offset = None,
    after: Offset = None,
    kinds: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """What happens, as it happens; with `flight` only there, with `kinds` (comma-separated) only such.

    A browser that comes back goes on where it was.
    """
    wanted = frozenset(kind for kind in kinds.split(",") if kind)
    events = follow_events(lab, streams, flight=flight, after=resume_point(request, after), kinds=wanted)
    return EventStream(streams, events)


@router.get("/flights/{flight}/jobs/{name}/log/{attempt}/{stepno}")
def show_log(
    flight: str, name: str, attempt: int, stepno: int, lab: LabDep, session: SessionDep, tail: Offset = None
) -> Response:
    """A step's log; `tail` is a number of bytes."""
    step = find_step(find_attempt(find_job(session, flight, name), attempt), stepno)
    return send(step_log(lab, step), tail=tail)


@router.get("/flights/{flight}/jobs/{name}/log/{attempt}/{stepno}/stream")
def stream_log(
    request: Request,
    flight: str,
    name: str,
    attempt: int,
    stepno: int,
    lab: LabDep,
    streams: StreamsDep,
    start: Annotated[int | None, Query(alias="from", ge=0, lt=1 << 50)] = None,
) -> Response:
    """A step's log while it is written; ends with the event `end`."""

    def ended() -> bool:
        with lab.reads() as session:
            return find_step(find_attempt(find_job(session, flight, name), attempt), stepno).status.final

    with lab.reads() as session:
        step = find_step(find_attempt(find_job(session, flight, name), attempt), stepno)
    text = follow_file(streams, step_log(lab, step), start=resume_point(request, start), ended=ended)
    return EventStream(streams, text)


@router.get("/flights/{flight}/jobs/{name}/files/{attempt}/{stepno}/{file}")
def show_file(
    flight: str, name: str, attempt: int, stepno: int, file: str, lab: LabDep, session: SessionDep
) -> Response:
    """A file that a step kept."""
    step = find_step(find_attempt(find_job(session, flight, name), attempt), stepno)
    for path in step_files(lab, step):
        if path.name == file:
            return send(inside(lab.logs, str(path)))
    raise NotFoundError(f"step {stepno} kept no file of this name")


@router.get("/hosts/{name}/console")
def show_console(
    name: str,
    lab: LabDep,
    session: SessionDep,
    start: Annotated[int | None, Query(alias="from", ge=0, lt=1 << 50)] = None,
    to: Offset = None,
    tail: Offset = None,
) -> Response:
    """What a host's serial console said, or the bytes [from, to) of it."""
    load_host(session, name)
    return send(console_file(lab, name), start=start, end=to, tail=tail)


@router.get("/hosts/{name}/console/stream")
def stream_console(
    request: Request,
    name: str,
    lab: LabDep,
    streams: StreamsDep,
    start: Annotated[int | None, Query(alias="from", ge=0, lt=1 << 50)] = None,
) -> Response:
    """A host's serial console, live."""
    with lab.reads() as session:
        load_host(session, name)
    return EventStream(streams, follow_file(streams, console_file(lab, name), start=resume_point(request, start)))
