"""The consoles of all guests of a host, as they go on: the near end of `guest-consoles` (images/sources).

One ssh channel for the whole host brings every new piece of every log, and takes the lines typed to guests. Looking
at a console then costs the host nothing, which matters where dom0 and guest share one slow processor.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Protocol

from lab.errors import Evidence, InfraError, StepFailure
from lab.hosts.protocols import Guard, no_guard

LOGS = "/var/log/xen/console"
"""Where xenconsoled keeps its logs in dom0."""
KEPT = 1 << 20
"""Bytes of each log that are kept, its last ones."""


class Stream(Protocol):
    """A command at work on a host: what it prints, and its input."""

    def read(self, timeout_s: float) -> bytes | None:
        """What was printed since; b"" when nothing was within `timeout_s`, None when the command has ended."""

    def write(self, data: bytes) -> None:
        """Feed its input; OSError when it has ended."""

    def close(self) -> None:
        """End it."""


class Frames:
    """Takes the stream apart. Pure: bytes in, (file, offset, bytes) and (id, answer) out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> tuple[list[tuple[str, int, bytes]], list[tuple[str, str]]]:
        """The pieces and answers that `data` completes; `InfraError` when it is not such a stream."""
        self._rest += data
        pieces: list[tuple[str, int, bytes]] = []
        answers: list[tuple[str, str]] = []
        while (end := self._rest.find(b"\n")) >= 0:
            words = self._rest[:end].decode(errors="replace").split(" ", 3)
            match words:
                case ["D", name, offset, length] if offset.isdecimal() and length.isdecimal():
                    whole = end + 1 + int(length)
                    if len(self._rest) < whole:
                        break
                    pieces.append((name, int(offset), self._rest[end + 1 : whole]))
                    self._rest = self._rest[whole:]
                case ["A", ident, *rest]:
                    answers.append((ident, " ".join(rest)))
                    self._rest = self._rest[end + 1 :]
                case _:
                    raise InfraError(f"the stream of guest consoles came garbled: {words[0][:40]!r}")
        return pieces, answers


class GuestFeed:
    """Keeps the logs of all guests of a host. Opened at the first look, and again after the host was rebooted."""

    def __init__(self, host: str, start: Callable[[], Stream], guard: Guard = no_guard) -> None:
        self._host = host
        self._start = start
        self._guard = guard
        self._news = threading.Condition()
        self._stream: Stream | None = None
        self._logs: dict[str, tuple[int, bytes]] = {}
        self._answers: dict[str, str] = {}

    def log(self, name: str) -> tuple[int, bytes]:
        """(offset, bytes) of the log called `name`: its last MiB begins at that offset of the file."""
        self._ensure()
        with self._news:
            return self._logs.get(name, (0, b""))

    def wait(self, timeout_s: float) -> None:
        """Return when something new came, or after `timeout_s`."""
        with self._news:
            self._news.wait(timeout_s)

    def type(self, domain: str, text: str, *, timeout_s: float) -> None:
        """Type a line on a guest's console; `StepFailure` when it has none."""
        ident = secrets.token_hex(4)
        line = f"W {ident} {domain} {text}\n".encode()
        try:
            self._ensure().write(line)
        except OSError:  # the host was rebooted since
            self.close()
            self._ensure().write(line)
        until = time.monotonic() + timeout_s
        while (answer := self._answers.pop(ident, None)) is None:
            if time.monotonic() >= until:
                raise StepFailure(f"{self._host}: the console of {domain} took no line within {timeout_s:.0f} s")
            self._guard()
            self.wait(0.2)
        if answer != "ok":
            raise StepFailure(
                f"{self._host}: cannot type on the console of {domain}: {answer.removeprefix('error ')}",
                evidence=Evidence(host=self._host),
            )

    def close(self) -> None:
        """Let the stream go; the next look opens it again."""
        with self._news:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _ensure(self) -> Stream:
        with self._news:
            if self._stream is not None:
                return self._stream
        stream = self._start()
        with self._news:
            self._stream = stream
            self._logs.clear()
        threading.Thread(target=self._follow, args=(stream,), name=f"consoles-{self._host}", daemon=True).start()
        self.wait(0.5)  # the logs there are come at once, and so does a shell's word that there is no such program
        with self._news:
            if self._stream is None and not self._logs:
                raise InfraError(
                    f"{self._host}: guest-consoles does not run there",
                    hint="build the host's image anew, from a manifest that has it among its sources",
                )
        return stream

    def _follow(self, stream: Stream) -> None:
        frames = Frames()
        try:
            while (data := stream.read(1.0)) is not None:
                if data:
                    pieces, answers = frames.feed(data)
                    self._take(stream, pieces, answers)
        except (OSError, InfraError):
            pass  # whoever looks next opens the stream again, and is told why when that fails
        with self._news:
            if self._stream is stream:
                self._stream = None
            self._news.notify_all()
        stream.close()

    def _take(self, stream: Stream, pieces: list[tuple[str, int, bytes]], answers: list[tuple[str, str]]) -> None:
        with self._news:
            if self._stream is not stream:
                return
            for name, offset, data in pieces:
                start, known = self._logs.get(name, (offset, b""))
                if offset != start + len(known):  # the log began anew, or was removed (nothing, at 0)
                    start, known = offset, b""
                whole = known + data
                cut = max(0, len(whole) - KEPT)
                self._logs[name] = (start + cut, whole[cut:])
            self._answers.update(answers)
            self._news.notify_all()
