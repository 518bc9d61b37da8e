"""Keeps a line to a machine's console: one small process per host between the console server and the recorder.

    line.py FOLDER SOCKETS SIGN KEY < SPECIFICATION

It connects to what SPECIFICATION (JSON) says, and to SOCKETS.serial, where the recorder takes the bytes for the
machine's; both ways, until one end closes; then again, with longer and longer pauses. FOLDER/console.gaps says when
nothing was heard: lines of JSON with `offset` (of the recording), `lost`, `back` (unix times), `why`. FOLDER/line.pid
is locked while it lives; SIGN and KEY (what it was started for) are in its command line. Ends on SIGTERM.

Standard library only, and run by its path.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from telnet import Telnet  # type: ignore[import-not-found]

CONNECT_S = 10.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MOST_WAITING = 1 << 20


class Remote:
    """The far end: a socket, or a program on a terminal."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._telnet: Any = None
        if "run" in specification:
            ours, theirs = pty.openpty()
            environment = {**os.environ, **specification.get("environment", {})}
            self._program = subprocess.Popen(
                specification["run"],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment,
                start_new_session=True,
            )
            os.close(theirs)
            self.number = ours
        else:
            line = socket.create_connection((specification["address"], specification["port"]), timeout=CONNECT_S)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            line.setblocking(True)
            self.number = line.detach()
            if specification.get("telnet"):
                self._telnet = Telnet()
                os.write(self.number, self._telnet.begin())
        os.set_blocking(self.number, False)

    def hear(self) -> tuple[bytes, bytes]:
        """(what came, what is to be answered); raises EOFError when the far end has closed."""
        try:
            data = os.read(self.number, 1 << 16)
        except BlockingIOError:
            return b"", b""
        except OSError as error:
            raise EOFError(error.strerror) from error
        if not data:
            raise EOFError("it was closed")
        return self._telnet.hear(data) if self._telnet is not None else (data, b"")

    def encode(self, data: bytes) -> bytes:
        """What is typed, as it is sent."""
        return self._telnet.say(data) if self._telnet is not None else data

    def close(self) -> None:
        """Let go, and end the program."""
        with suppress(OSError):
            os.close(self.number)
        if self._program is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._program.pid, signal.SIGTERM)
            try:
                self._program.wait(5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._program.pid, signal.SIGKILL)
                self._program.wait()


class Line:
    """Between the two ends."""

    def __init__(self, folder: Path, sockets: str, specification: dict[str, Any]) -> None:
        self._folder = folder
        self._serial = f"{sockets}.serial"
        self._specification = specification
        self._stopping = False
        self._until = float("inf")
        self._lost: tuple[float, int, str] | None = None

    def stop(self) -> None:
        """End as soon as possible."""
        self._stopping = True
        self._until = 0.0

    def run(self) -> None:
        """Keep the line until told to stop."""
        failures = 0
        while not self._stopping:
            why = ""
            began = time.monotonic()
            try:
                remote = Remote(self._specification)
                try:
                    with socket.socket(socket.AF_UNIX) as recorder:
                        recorder.connect(self._serial)
                        recorder.setblocking(False)
                        why = self._pump(remote, recorder)
                finally:
                    remote.close()
            except OSError as error:
                why = error.strerror or str(error)
            if self._stopping:
                return
            if self._lost is None:
                self._lost = time.time(), self._offset(), why
            failures = 0 if time.monotonic() - began > 30 else failures + 1
            end = time.monotonic() + PAUSES_S[min(failures, len(PAUSES_S)) - 1]
            while time.monotonic() < min(end, self._until):
                time.sleep(0.05)

    def _pump(self, remote: Remote, recorder: socket.socket) -> str:
        """Both ways, until an end closes; returns why. The line counts as back once something was heard on it, or
        after a second in which nobody hung up.
        """
        to_recorder, to_remote = bytearray(), bytearray()
        since = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(remote.number, selectors.EVENT_READ, "remote")
            selector.register(recorder, selectors.EVENT_READ, "recorder")
            while not self._stopping:
                for key, events in selector.select(0.5):
                    try:
                        if key.data == "remote":
                            if events & selectors.EVENT_WRITE and to_remote:
                                with suppress(BlockingIOError):
                                    del to_remote[: os.write(remote.number, to_remote)]
                            if events & selectors.EVENT_READ:
                                heard, answer = remote.hear()
                                to_recorder += heard
                                to_remote += answer
                                if heard:
                                    self._back()
                        else:
                            if events & selectors.EVENT_WRITE and to_recorder:
                                with suppress(BlockingIOError):
                                    del to_recorder[: recorder.send(to_recorder)]
                            if events & selectors.EVENT_READ:
                                with suppress(BlockingIOError):
                                    typed = recorder.recv(4096)
                                    if not typed:
                                        return "the recorder has gone"
                                    to_remote += remote.encode(typed)
                    except (EOFError, OSError) as error:
                        with suppress(OSError):  # what has come is not lost with the line
                            recorder.setblocking(True)
                            recorder.settimeout(5)
                            recorder.sendall(to_recorder)
                        return str(error) or "it was closed"
                if self._lost is not None and time.monotonic() - since > 1.0:
                    self._back()
                # while the recorder does not take it (its disk is full), nothing more is read: the far end waits
                reads = selectors.EVENT_READ if len(to_recorder) < MOST_WAITING else 0
                wanted = reads | (selectors.EVENT_WRITE if to_remote else 0)
                if wanted:
                    selector.modify(remote.number, wanted, "remote")
                selector.modify(
                    recorder, selectors.EVENT_READ | (selectors.EVENT_WRITE if to_recorder else 0), "recorder"
                )
        return ""

    def _offset(self) -> int:
        try:
            return (self._folder / "console.log").stat().st_size
        except OSError:
            return 0

    def _back(self) -> None:
        if self._lost is None:
            return
        (lost, offset, why), self._lost = self._lost, None
        with suppress(OSError), (self._folder / "console.gaps").open("a") as file:
            file.write(json.dumps({"offset": offset, "lost": lost, "back": time.time(), "why": why[:300]}) + "\n")


def main(arguments: list[str]) -> int:
    """Keep one host's line, in the background; 1 when another process does already."""
    folder, sockets = Path(arguments[0]), arguments[1]
    specification = json.load(sys.stdin)
    pid_file = os.open(folder / "line.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1
    line = Line(folder, sockets, specification)
    signal.signal(signal.SIGTERM, lambda *_: line.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.ftruncate(pid_file, 0)
    os.write(pid_file, str(os.getpid()).encode())
    line.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
