"""Watches the hosts of a job while its steps wait: a panic or a dead machine ends the step at once, with evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from lab.errors import Evidence, HostDiedError, LabError, StepFailure
from lab.hosts.hardware import Fault, HardwareMatcher
from lab.hosts.protocols import HostAccess
from lab.hosts.symptoms import FatalMatcher, Symptom, panic_reason

LOOK_EVERY_S = 0.5
SETTLE_S = 0.3
"""A panic's cause is printed after its first line; so long the console is left to go on, once."""
TAIL_BYTES = 4096


def console_tail(host: HostAccess, limit: int = TAIL_BYTES) -> str:
    """The last `limit` bytes of a host's console as text; empty when there is none."""
    try:
        end = host.console.offset()
        return host.console.read(max(0, end - limit), end).decode(errors="replace")
    except (OSError, LabError):
        return ""


class FatalConsoleError(StepFailure):
    """A console shows that Xen or dom0 crashed: the product did wrong, whatever the machine did afterwards."""


class _Watched:
    def __init__(self, host: HostAccess) -> None:
        self.host = host
        self.matcher = FatalMatcher()
        self.hardware = HardwareMatcher()
        self.offset = host.console.offset()
        self.symptom: Symptom | None = None


def _forget(host: str, faults: Sequence[Fault]) -> None:
    """Nobody is told."""


class HostWatch:
    """Guards a step against hosts that died under it. Looking is cheap and happens at most twice a second.

    `tell` hears of faults of a host's hardware that its console shows; they end no step.
    """

    def __init__(self, hosts: Iterable[HostAccess], tell: Callable[[str, Sequence[Fault]], None] = _forget) -> None:
        self._tell = tell
        self._watched = [_Watched(host) for host in hosts]
        self._next = 0.0
        self._lock = threading.Lock()

    def guard(self) -> None:
        """Raise `StepFailure` when a console shows a panic, `HostDiedError` when a machine is off."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + LOOK_EVERY_S
            for watched in self._watched:
                self._look(watched)

    def listen(self) -> None:
        """Raise `FatalConsoleError` when a console shows a panic, without waiting for the next look."""
        with self._lock:
            for watched in self._watched:
                self._listen(watched)

    def _look(self, watched: _Watched) -> None:
        self._listen(watched)
        host = watched.host
        if host.power.get() is False:
            raise HostDiedError(
                f"{host.name}: the machine is off", evidence=Evidence(host=host.name, console_tail=console_tail(host))
            )

    def _listen(self, watched: _Watched) -> None:
        host = watched.host
        data = host.console.read(watched.offset)
        watched.offset += len(data)
        if data and (faults := watched.hardware.feed(data)):
            self._tell(host.name, faults)
        if data and watched.symptom is None:
            watched.symptom = watched.matcher.feed(data)
            if watched.symptom is not None:
                time.sleep(SETTLE_S)
        if (symptom := watched.symptom) is not None:
            tail = console_tail(host)
            raise FatalConsoleError(
                f"{host.name}: {symptom.name}: {panic_reason(tail) or symptom.line}",
                evidence=Evidence(host=host.name, console_tail=tail),
            )
