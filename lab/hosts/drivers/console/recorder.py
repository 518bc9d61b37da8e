"""The console recorder: one small process per host that keeps every byte of its serial line, whoever listens.

    recorder.py FOLDER SOCKETS UUID [--keep]

The machine connects to SOCKETS.serial; what it says is appended to FOLDER/console.log. FOLDER/console.idx says when
each byte came: records of (offset, unix time), at most ten a second, written before the bytes they stand for. Whoever
connects to SOCKETS.console types on the line and sees what comes from then on. FOLDER/recorder.pid is locked while
the recorder lives. It ends on SIGTERM, once the line is drained, or by itself when the line is closed and the machine
(FOLDER/qemu.pid, known by its UUID) is gone; with --keep only when it is told to.

Standard library only, and run by its path: it must be there before the machine is, in a fraction of a second.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

INDEX_RECORD = struct.Struct(">Qd")
INDEX_EVERY_S = 0.1
LISTENER_BUFFER = 1 << 20
TYPED_BUFFER = 1 << 16
IDLE_S = 20.0


@dataclass(eq=False)
class _Listener:
    """Someone on the console socket; `outgoing` is what it has not taken yet."""

    socket: socket.socket
    outgoing: bytearray = field(default_factory=bytearray)
    typing: bool = True


class Recorder:
    """The serial line's owner. `run` is its whole life."""

    def __init__(self, folder: Path, sockets: str, uuid: str, *, keep: bool = False) -> None:
        self._folder = folder
        self._keeps = keep
        self._uuid = uuid.encode()
        self._log: BinaryIO = (folder / "console.log").open("ab", buffering=0)
        self._index: BinaryIO = (folder / "console.idx").open("ab", buffering=0)
        self._drop_torn_record()
        self._offset = os.fstat(self._log.fileno()).st_size
        self._indexed = 0.0
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[socket.socket, _Listener] = {}
        self._line: socket.socket | None = None
        self._typed = bytearray()
        self._stopping = False
        self._machine = self._listen(f"{sockets}.serial")
        self._console = self._listen(f"{sockets}.console")

    def _drop_torn_record(self) -> None:
        size = os.fstat(self._index.fileno()).st_size
        os.ftruncate(self._index.fileno(), size - size % INDEX_RECORD.size)

    def _listen(self, path: str) -> socket.socket:
        Path(path).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(16)
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        return listening

    def stop(self) -> None:
        """End as soon as what the machine has sent is written."""
        self._stopping = True

    def run(self) -> None:
        """Record until told to stop, or until the machine is gone."""
        quiet_since = time.monotonic()
        while not self._stopping:
            for key, events in self._selector.select(1.0):
                self._serve(key.fileobj, events)
            if self._line is not None:
                quiet_since = time.monotonic()
            elif not self._keeps and time.monotonic() - quiet_since > IDLE_S and not self._machine_lives():
                return
        while self._line is not None and self._hear():
            pass

    def _serve(self, what: object, events: int) -> None:
        if what is self._machine:
            self._answer_machine()
        elif what is self._console:
            self._answer_listener()
        elif what is self._line and self._line is not None:
            if events & selectors.EVENT_WRITE:
                self._type()
            if events & selectors.EVENT_READ:
                self._hear()
        elif isinstance(what, socket.socket) and what in self._listeners:
            self._serve_listener(self._listeners[what], events)

    def _answer_machine(self) -> None:
        line, _ = self._machine.accept()
        if self._line is not None:  # a new connection is a new machine: what the old one sent comes first
            while self._hear():
                pass
            self._hang_up()
        line.setblocking(False)
        self._line = line
        self._typed.clear()
        self._selector.register(line, selectors.EVENT_READ)

    def _answer_listener(self) -> None:
        peer, _ = self._console.accept()
        peer.setblocking(False)
        self._listeners[peer] = _Listener(peer)
        self._selector.register(peer, selectors.EVENT_READ)

    def _hear(self) -> bool:
        """Take what the machine sent; False when there is nothing, or no line any more."""
        if self._line is None:
            return False
        try:
            data = self._line.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return False
        self._keep(data)
        for listener in list(self._listeners.values()):
            self._tell(listener, data)
        return True

    def _keep(self, data: bytes) -> None:
        now = time.time()
        if now - self._indexed >= INDEX_EVERY_S or now < self._indexed:
            self._index.write(INDEX_RECORD.pack(self._offset, now))
            self._indexed = now
        while data:
            try:
                written = self._log.write(data)
            except OSError:  # the disk is full: the machine's output waits in the socket rather than be lost
                time.sleep(1.0)
                continue
            self._offset += written
            data = data[written:]

    def _hang_up(self) -> None:
        if self._line is not None:
            self._selector.unregister(self._line)
            self._line.close()
            self._line = None

    def _type(self) -> None:
        if self._line is None:
            return
        try:
            sent = self._line.send(self._typed)
        except BlockingIOError:
            return
        except OSError:
            return
        del self._typed[:sent]
        if not self._typed:
            self._selector.modify(self._line, selectors.EVENT_READ)

    def _tell(self, listener: _Listener, data: bytes) -> None:
        if len(listener.outgoing) + len(data) > LISTENER_BUFFER:
            self._drop(listener)  # it does not read; the log has everything it misses
            return
        listener.outgoing += data
        self._watch(listener)

    def _serve_listener(self, listener: _Listener, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del listener.outgoing[: listener.socket.send(listener.outgoing)]
            if events & selectors.EVENT_READ and len(self._typed) < TYPED_BUFFER:
                data = listener.socket.recv(4096)
                if not data:
                    listener.typing = False
                elif self._line is not None:
                    self._typed += data
                    self._selector.modify(self._line, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(listener)
            return
        self._watch(listener)

    def _watch(self, listener: _Listener) -> None:
        """Wait for what this listener can still do; one that has said its last and is told all is let go."""
        events = (selectors.EVENT_READ if listener.typing else 0) | (selectors.EVENT_WRITE if listener.outgoing else 0)
        if events:
            self._selector.modify(listener.socket, events)
        else:
            self._drop(listener)

    def _drop(self, listener: _Listener) -> None:
        if self._listeners.pop(listener.socket, None) is not None:
            self._selector.unregister(listener.socket)
            listener.socket.close()

    def _machine_lives(self) -> bool:
        try:
            pid = int((self._folder / "qemu.pid").read_text())
            return self._uuid in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False


def main(arguments: list[str]) -> int:
    """Record one host's console, in the background; 1 when another recorder does already."""
    folder, sockets, uuid = Path(arguments[0]), arguments[1], arguments[2]
    pid_file = os.open(folder / "recorder.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1
    recorder = Recorder(folder, sockets, uuid, keep="--keep" in arguments[3:])
    signal.signal(signal.SIGTERM, lambda *_: recorder.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.fork():  # who started us goes on now: both sockets listen
        os._exit(0)
    os.setsid()
    os.ftruncate(pid_file, 0)
    os.write(pid_file, str(os.getpid()).encode())
    recorder.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
