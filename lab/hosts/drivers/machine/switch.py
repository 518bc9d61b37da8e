"""A learning Ethernet switch between emulated hosts: one process per lab, one datagram a frame.

    switch.py FOLDER

Each port is a pair of sockets in FOLDER: the host's `NAME.vm` and ours, `NAME.sw`. The socket `switch` takes one line
a connection: `attach LAN NAME` makes the port (anew, when there is one: the host restarted) and answers `ok`. Ports of
one LAN reach each other. FOLDER/switch.lock is locked while the switch lives; it ends when no host has been on it for
half a minute.

Standard library only, and run by its path, as the console recorder.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

LARGEST_FRAME = 1 << 16
FRAMES_AT_ONCE = 64
QUEUED_FRAMES = 512
LEARNED = 4096
GRACE_S = 30.0


@dataclass(eq=False)
class _Port:
    lan: str
    host_path: str
    socket: socket.socket
    attached: float
    connected: bool = False
    queue: deque[bytes] = field(default_factory=lambda: deque(maxlen=QUEUED_FRAMES))


class Switch:
    """The switch at work. `run` is its whole life."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._selector = selectors.DefaultSelector()
        self._ports: dict[str, _Port] = {}
        self._by_socket: dict[socket.socket, _Port] = {}
        self._learned: dict[tuple[str, bytes], _Port] = {}
        path = folder / "switch"
        path.unlink(missing_ok=True)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(str(path))
        self._control.listen(16)
        self._selector.register(self._control, selectors.EVENT_READ)

    def run(self) -> None:
        """Switch frames until no host is left."""
        busy = checked = time.monotonic()
        while True:
            for key, events in self._selector.select(5.0):
                self._serve(key.fileobj, events)
            now = time.monotonic()
            if now - checked >= 5.0:
                checked = now
                self._forget_the_dead(now)
                if self._ports:
                    busy = now
                elif now - busy > GRACE_S:
                    return

    def _serve(self, what: object, events: int) -> None:
        if what is self._control:
            self._obey()
        elif isinstance(what, socket.socket) and (port := self._by_socket.get(what)) is not None:
            if events & selectors.EVENT_WRITE:
                self._flush(port)
            if events & selectors.EVENT_READ:
                self._take(port)

    def _obey(self) -> None:
        peer, _ = self._control.accept()
        with peer:
            peer.settimeout(1.0)
            try:
                words = peer.recv(256).decode().split()
                if len(words) == 3 and words[0] == "attach":
                    self._attach(words[1], words[2])
                    peer.sendall(b"ok\n")
                else:
                    peer.sendall(b"error\n")
            except OSError:
                return  # the asker is gone; it asks again

    def _attach(self, lan: str, name: str) -> None:
        self._detach(name)
        ours = self._folder / f"{name}.sw"
        ours.unlink(missing_ok=True)
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        end.bind(str(ours))
        end.setblocking(False)
        port = _Port(lan=lan, host_path=str(self._folder / f"{name}.vm"), socket=end, attached=time.monotonic())
        self._ports[name] = port
        self._by_socket[end] = port
        self._selector.register(end, selectors.EVENT_READ)

    def _detach(self, name: str) -> None:
        port = self._ports.pop(name, None)
        if port is not None:
            del self._by_socket[port.socket]
            self._learned = {key: where for key, where in self._learned.items() if where is not port}
            self._selector.unregister(port.socket)
            port.socket.close()

    def _take(self, port: _Port) -> None:
        for _ in range(FRAMES_AT_ONCE):  # then the other ports have their turn
            try:
                frame = port.socket.recv(LARGEST_FRAME)
            except OSError:
                return
            if len(frame) < 14:
                continue
            if len(self._learned) < LEARNED:
                self._learned[port.lan, frame[6:12]] = port
            known = None if frame[0] & 1 else self._learned.get((port.lan, frame[:6]))
            if known is not None:
                if known is not port:
                    self._send(known, frame)
                continue
            for other in self._ports.values():
                if other is not port and other.lan == port.lan:
                    self._send(other, frame)

    def _send(self, port: _Port, frame: bytes) -> None:
        if port.queue:
            port.queue.append(frame)  # a full queue loses its oldest frame, as a real switch's would
            return
        if not self._sent(port, frame):
            port.queue.append(frame)
            self._selector.modify(port.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _flush(self, port: _Port) -> None:
        while port.queue and self._sent(port, port.queue[0]):
            port.queue.popleft()
        if not port.queue:
            self._selector.modify(port.socket, selectors.EVENT_READ)

    def _sent(self, port: _Port, frame: bytes) -> bool:
        """False when the host's queue is full; a frame for a host that is off is lost."""
        try:
            if not port.connected:
                port.socket.connect(port.host_path)
                port.connected = True
            port.socket.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            port.connected = False
        return True

    def _forget_the_dead(self, now: float) -> None:
        for name, port in list(self._ports.items()):
            if now - port.attached > GRACE_S and not _somebody_at(port.host_path):
                self._detach(name)


def _somebody_at(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def main(arguments: list[str]) -> int:
    """Run the switch of one lab, in the background; 1 when it runs already."""
    folder = Path(arguments[0])
    lock = os.open(folder / "switch.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    switch = Switch(folder)
    if os.fork():  # who started us goes on now: the control socket listens
        os._exit(0)
    os.setsid()
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    switch.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
