"""Finds and sends files of the lab's home: never one outside of its root, and never as something a browser runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastapi.responses import StreamingResponse

from lab.context import Lab
from lab.errors import NotFoundError
from lab.flights.model import NAME, StepResult

FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_CHUNK: Final = 64 << 10
_SNIFF: Final = 8 << 10


def inside(root: Path, *parts: str) -> Path:
    """The file below `root`, links followed; `NotFoundError` when that leads anywhere else."""
    try:
        base = root.resolve()
        path = base.joinpath(*parts).resolve()
    except (ValueError, OSError) as error:
        raise NotFoundError("there is no such file") from error
    if path == base or not path.is_relative_to(base):
        raise NotFoundError("there is no such file")
    return path


def console_file(lab: Lab, host: str) -> Path:
    """Where the serial console of `host` is recorded."""
    if not NAME.fullmatch(host):
        raise NotFoundError(f"there is no host {host!r}")
    return inside(lab.settings.home / "hosts", host, "console.log")


def step_log(lab: Lab, step: StepResult) -> Path:
    """The log of a step."""
    if not step.log:
        raise NotFoundError(f"step {step.stepno} ({step.testid}) has no log")
    return inside(lab.logs, step.log)


def step_files(lab: Lab, step: StepResult) -> list[Path]:
    """What a step kept beside its log, by name."""
    if not step.log:
        return []
    log = inside(lab.logs, step.log)
    prefix = f"{log.name.removesuffix('.log')}."
    try:
        return sorted(
            path
            for path in log.parent.iterdir()
            if path.name.startswith(prefix) and path.name != log.name and FILE_NAME.fullmatch(path.name)
        )
    except OSError:
        return []


def read_tail(path: Path, limit: int) -> tuple[bytes, int]:
    """The last `limit` bytes of a file from the start of a line on, and how many there are before them."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - limit)
            file.seek(start)
            data = file.read(limit)
    except OSError:
        return b"", 0
    if start:
        skip = data.find(b"\n") + 1
        data, start = data[skip:], start + skip
    return data, start


def send(path: Path, *, start: int | None = None, end: int | None = None, tail: int | None = None) -> StreamingResponse:
    """Send a file, or the bytes [start, end) or the last `tail` ones: text as plain text, the rest as an attachment."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SNIFF)
    except OSError as error:
        raise NotFoundError("this file is not there (yet, or any more)") from error
    stop = size if end is None else min(end, size)
    first = min(max(0, stop - tail) if tail is not None else start or 0, stop)
    headers = {
        "Content-Length": str(stop - first),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "no-cache",
    }
    if b"\0" in head and not path.name.endswith(".log"):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return StreamingResponse(_read(path, first, stop), media_type="application/octet-stream", headers=headers)
    return StreamingResponse(_read(path, first, stop), media_type="text/plain; charset=utf-8", headers=headers)


def _read(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """A growing file is sent as long as it was when its length was told."""
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (data := file.read(min(_CHUNK, stop - start))):
            start += len(data)
            yield data
