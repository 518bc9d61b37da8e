"""A port of dom0 as a socket of ours: whoever may open the socket's folder, and nobody else, reaches it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko


class Forward:
    """Listens on the unix socket `path` and joins each connection with a new channel of `dial`, until closed.

    The folder of `path` decides who may connect; it has to be private. A connection that cannot be joined is closed.
    """

    def __init__(self, path: str, dial: Callable[[], paramiko.Channel], *, name: str) -> None:
        self._path = Path(path)
        self._dial = dial
        self._name = name
        self._lock = threading.Lock()
        self._open: list[socket.socket | paramiko.Channel] = []
        self._closed = False
        self.broken = False
        """Whether a connection that had been joined has ended."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True, name=f"forward-{name}").start()

    def close(self) -> None:
        """Listen no more, and cut what is connected."""
        with self._lock:
            self._closed = True
            ends = [*self._open, self._listener]
            self._open.clear()
        for end in ends:
            _cut(end)
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = self._dial()
            except Exception:  # noqa: BLE001 - whatever it is, it shows at the other end as a closed connection
                _cut(near)
                continue
            with self._lock:
                closed = self._closed
                if not closed:
                    self._open += [near, far]
            if closed:
                _cut(near)
                _cut(far)
                return
            for source, sink in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pump, args=(source, sink), daemon=True, name=f"forward-{self._name}"
                ).start()

    def _pump(self, source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        self.broken = True
        _cut(source)
        _cut(sink)
        with self._lock:
            self._open = [end for end in self._open if end not in (source, sink)]


def _cut(end: socket.socket | paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end.close()
