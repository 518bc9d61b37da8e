"""Beside: what the leader has done without waiting for it (bisections, gates), whenever something has happened."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from lab.context import Lab

log = logging.getLogger(__name__)

AT_MOST_EVERY_S = 1.0


class Beside:
    """Works in a thread of its own: neither a decision over thousands of commits nor a fetch holds the leader up."""

    def __init__(self, lab: Lab, name: str, work: Callable[[Lab], object]) -> None:
        self._lab = lab
        self._name = name
        self._work = work
        self._thread: threading.Thread | None = None
        self._next = 0.0

    def offer(self) -> float | None:
        """Look for what can go on, if it is time to; returns in how many seconds to ask again, None: when it rings."""
        now = time.monotonic()
        if self._thread is not None and self._thread.is_alive():
            return AT_MOST_EVERY_S
        if now < self._next:
            return self._next - now
        self._next = now + AT_MOST_EVERY_S
        self._thread = threading.Thread(target=self._step, name=self._name, daemon=True)
        self._thread.start()
        return None

    def end(self) -> None:
        """Begin nothing more, and wait for what goes on."""
        if self._thread is not None:
            self._thread.join()

    def _step(self) -> None:
        try:
            self._work(self._lab)
        except Exception:
            log.exception("%s: not taken on; trying again", self._name)
