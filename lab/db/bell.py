"""Bells: how a process tells the leader that something changed, without anybody looking at a clock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

_CHANNEL = "lab_bell"


class SocketBell:
    """A Unix datagram socket beside an SQLite database: whoever rings sends one byte to whoever waits."""

    def __init__(self, home: Path) -> None:
        # A socket's path must be short, and a lab's home need not be.
        name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
        self._path = Path(tempfile.gettempdir()) / f"flightline-{os.getuid()}-{name}.bell"
        self._listening: socket.socket | None = None
        self._inode: int | None = None
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake the waiter, if there is one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            # nobody listens, or there are unheard rings already: either way there is nothing to add
            with contextlib.suppress(OSError):
                sender.sendto(b"!", str(self._path))

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring. Rings since the last wait count, so none between two waits is lost."""
        if self._listening is None:
            self._listen()
            return True  # whatever happened before we listened is to be looked at now
        listening = self._listen()
        ready, _, _ = select.select([listening], [], [], max(0.0, timeout_s))
        if not ready:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.recv(64)
        return True

    def _listen(self) -> socket.socket:
        with self._lock:
            if self._listening is None:
                # Only the leader waits, and there is one leader at a time: a socket found here is a dead leader's.
                self._path.unlink(missing_ok=True)
                listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                listening.setblocking(False)
                listening.bind(str(self._path))
                self._path.chmod(0o600)
                self._inode = self._path.stat().st_ino
                self._listening = listening
            return self._listening

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            if self._listening is not None:
                self._listening.close()
                self._listening = None
                with contextlib.suppress(FileNotFoundError):
                    if self._path.stat().st_ino == self._inode:  # else it is another leader's by now
                        self._path.unlink()


class PostgresBell:
    """LISTEN / NOTIFY of PostgreSQL: works between machines."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listening: psycopg.Connection[tuple[object, ...]] | None = None

    def ring(self) -> None:
        """Wake whoever waits."""
        # a ring that fails costs time only: the leader looks again when the next hold runs out
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(text(f"NOTIFY {_CHANNEL}"))

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification; one that came since the last wait counts. A lost connection is made anew."""
        try:
            if self._listening is None:
                url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
                self._listening = psycopg.connect(url, autocommit=True)
                self._listening.execute(f"LISTEN {_CHANNEL}")
                return True  # whatever happened before we listened is to be looked at now
            return any(True for _ in self._listening.notifies(timeout=max(0.0, timeout_s), stop_after=1))
        except psycopg.Error:
            self.close()
            time.sleep(min(1.0, max(0.0, timeout_s)))
            return True  # nobody knows what was missed

    def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
