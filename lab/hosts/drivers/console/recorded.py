"""A serial console read from its recording, whichever process recorded it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import InfraError
from lab.hosts.drivers.console.recorder import INDEX_RECORD
from lab.hosts.protocols import Guard, no_guard

_CHUNK = 1 << 18
_OVERLAP = 1 << 16
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A time in which nothing of the console was heard: what the machine said then is not in the recording."""

    offset: int
    lost: datetime
    back: datetime
    why: str

    def __str__(self) -> str:
        return f"the console was not heard from {self.lost:%H:%M:%S} to {self.back:%H:%M:%S} UTC: {self.why}"


@dataclass(frozen=True)
class RecordedConsole:
    """The `Console` of a host whose recorder writes `log` and `index` and listens on `peers` (see `recorder`).

    A match never spans more than 64 KiB. Typing needs the recorder; reading does not.
    """

    host: str
    log: Path
    index: Path
    peers: str
    guard: Guard = no_guard
    wait: Callable[[float], None] = time.sleep

    def offset(self) -> int:
        """Where the recording ends now; 0 before the host's first power-on."""
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int, end: int | None = None) -> bytes:
        """The recorded bytes of [start, end), to the present end when `end` is None."""
        end = self.offset() if end is None else end
        if end <= start:
            return b""
        try:
            with self.log.open("rb") as log:
                log.seek(start)
                return log.read(end - start)
        except FileNotFoundError:
            return b""

    def wait_for(
        self, pattern: re.Pattern[bytes], *, since: int, timeout_s: float, guard: Guard = no_guard
    ) -> re.Match[bytes] | None:
        """The first match after offset `since`; None when `timeout_s` seconds passed without one."""
        until = time.monotonic() + timeout_s
        at, window = since, b""
        while True:
            chunk = self.read(at, min(self.offset(), at + _CHUNK))
            if chunk:
                at += len(chunk)
                window += chunk
                if found := pattern.search(window):
                    return found
                window = _end_of(window)
                continue
            if time.monotonic() >= until:
                return None
            self.guard()
            guard()
            self.wait(_POLL_S)

    def write(self, data: bytes) -> None:
        """Type `data` on the console; `InfraError` when nobody records it."""
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(10.0)
                peer.connect(self.peers)
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise InfraError(
                f"{self.host}: cannot type on the console: {error.strerror or error}", hint="is the host powered on?"
            ) from error

    def time_of(self, offset: int) -> datetime | None:
        """When the byte at `offset` was received (UTC, to about 0.1 s); None when it was not yet."""
        if offset < 0 or offset >= self.offset():
            return None
        with self.index.open("rb") as index:
            low, high = 0, self.index.stat().st_size // INDEX_RECORD.size
            moment: float | None = None
            while low < high:
                middle = (low + high) // 2
                index.seek(middle * INDEX_RECORD.size)
                start, received = INDEX_RECORD.unpack(index.read(INDEX_RECORD.size))
                if start <= offset:
                    low, moment = middle + 1, received
                else:
                    high = middle
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    def tail(self, since: int = 0, *, limit: int = 6000) -> str:
        """The last lines since an offset, as text fit for evidence; what was not heard meanwhile is said first."""
        end = self.offset()
        text = self.read(max(since, end - limit), end).decode(errors="replace").replace("\r", "")
        return "".join(f"[{gap}]\n" for gap in self.gaps(since)) + text

    def gaps(self, since: int = 0) -> list[Gap]:
        """When nobody listened, from an offset on; a line that is not whole (it is being written) is left out."""
        try:
            lines = self.log.with_suffix(".gaps").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                one = json.loads(line)
                gap = Gap(
                    offset=int(one["offset"]), lost=datetime.fromtimestamp(one["lost"], UTC),
                    back=datetime.fromtimestamp(one["back"], UTC), why=str(one["why"]),
                )  # fmt: skip
            except (ValueError, KeyError, TypeError, OverflowError):
                continue
            if gap.offset >= since:
                found.append(gap)
        return found


def _end_of(window: bytes) -> bytes:
    """What of the searched bytes may still be the beginning of a match; cut at a line where there is one."""
    if len(window) <= _OVERLAP:
        return window
    end = window[-_OVERLAP:]
    return end[end.find(b"\n") + 1 :]
