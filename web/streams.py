"""Server-sent events: what happened, and files as they grow; few at a time, each ending with its reader."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from lab.context import Lab
from lab.db.flights import events_after, last_event
from lab.flights.plain_text import clean_piece
from web.files import read_tail

POLL_S: Final = 0.3
HEARTBEAT_S: Final = 10.0
ENDED_S: Final = 1.0
"""How often a stream asks whether the step it shows has ended."""
TAIL: Final = 64 << 10
"""How much of a file a reader gets to begin with."""
BEHIND: Final = 1 << 20
"""A reader that is further behind than this goes on at the tail."""
_PIECE: Final = 32 << 10


class Streams:
    """Counts the open streams."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0
        self.closing = False

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Hold a place while inside; False when all are taken."""
        if self.closing or self._open >= self._limit:
            yield False
            return
        self._open += 1
        try:
            yield True
        finally:
            self._open -= 1

    def close(self) -> None:
        """Let every stream end at its next look, so that the server can stop."""
        self.closing = True


class EventStream(StreamingResponse):
    """A response that holds a place among the streams for exactly as long as it is being sent."""

    def __init__(self, streams: Streams, events: AsyncIterator[str]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the client leaves, or say that it must come back later."""
        with self._streams.slot() as free:
            if free:
                await super().__call__(scope, receive, send)
                return
        busy = PlainTextResponse("too many live streams; try again soon\n", 503, headers={"Retry-After": "5"})
        await busy(scope, receive, send)


def resume_point(request: Request, given: int | None) -> int | None:
    """Where a stream goes on: what the browser saw last, else what the address says."""
    seen = request.headers.get("Last-Event-ID", "")
    return int(seen) if seen.isdecimal() and len(seen) < 16 else given


def _event(data: Mapping[str, object], *, number: int | None = None, name: str = "") -> str:
    lines = [f"id: {number}"] if number is not None else []
    lines += [f"event: {name}"] if name else []
    # JSON has no raw newline in it, so one data line is enough whatever the text is
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""])


async def follow_events(
    lab: Lab, streams: Streams, *, flight: int | None, after: int | None, kinds: Collection[str] = ()
) -> AsyncIterator[str]:
    """Events after `after` (None: from now on), of one flight or of all, of these kinds or of any."""

    def read(last: int) -> list[tuple[int, str, dict[str, object]]]:
        with lab.reads() as session:
            return events_after(session, last, flight=flight)

    def newest() -> int:
        with lab.reads() as session:
            return last_event(session)

    end = await run_in_threadpool(newest)
    last = end if after is None else min(after, end)
    yield "retry: 1000\n\n"
    beat = time.monotonic()
    while not streams.closing:
        happened = await run_in_threadpool(read, last)
        for last, kind, data in happened:
            if kinds and kind not in kinds:
                continue
            yield _event({"kind": kind, "data": data}, number=last)
        if happened:
            beat = time.monotonic()
            continue
        if time.monotonic() - beat > HEARTBEAT_S:
            beat = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    text: str
    start: int
    end: int
    reset: bool = False
    skipped: int = 0


def _next_piece(path: Path, offset: int | None) -> _Piece:
    """Read on from `offset`; who is too far behind is taken to the tail and told what was left out."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    reset = offset is not None and offset > size
    wanted = start = 0 if reset or offset is None else offset
    if size - wanted > (TAIL if offset is None else BEHIND):
        _, start = read_tail(path, TAIL)
        if start >= size:  # the last line alone is longer than that: then any place is as good
            start = size - TAIL
    skipped = start - wanted
    if start >= size:
        return _Piece(text="", start=start, end=start, reset=reset)
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_PIECE)
    text, used = clean_piece(data)
    return _Piece(text=text, start=start, end=start + used, reset=reset, skipped=skipped)


async def follow_file(
    streams: Streams, path: Path, *, start: int | None, ended: Callable[[], bool] | None = None
) -> AsyncIterator[str]:
    """The text of a file as it grows, each piece with the offset after it; `ended` says when no more will come."""
    yield "retry: 1000\n\n"
    offset = start
    beat = asked = time.monotonic() - HEARTBEAT_S
    over = False
    while not streams.closing:
        if ended is not None and not over and time.monotonic() - asked >= ENDED_S:
            asked = time.monotonic()
            over = await run_in_threadpool(ended)
        piece = await run_in_threadpool(_next_piece, path, offset)
        moved = piece.end != piece.start
        if moved or piece.reset:
            offset, beat = piece.end, time.monotonic()
            yield _event({"text": piece.text, "skipped": piece.skipped, "reset": piece.reset}, number=offset)
            if moved:
                # a burst must neither starve the other readers nor fill the memory of this one
                await asyncio.sleep(0.01)
                continue
        if over:
            yield _event({}, name="end")
            return
        if time.monotonic() - beat > HEARTBEAT_S:
            beat = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(POLL_S)
