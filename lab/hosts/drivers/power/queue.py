"""One at a time: the firmware of PDUs (and of many BMCs) takes one request at a time and loses others."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import PowerError
from lab.hosts.protocols import BootOrder, Power


class Queued:
    """A switch that is used by one at a time on this machine, whatever the process; `device` names what is shared."""

    def __init__(self, inner: Power, locks: Path, device: str, *, wait_s: float = 300.0) -> None:
        self._inner = inner
        self._file = locks / f"power-{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock"
        self._device = device
        self._wait_s = wait_s

    def set(self, on: bool) -> None:
        """Switch when it is our turn."""
        with self._turn():
            self._inner.set(on)

    def get(self) -> bool | None:
        """Ask when it is our turn."""
        with self._turn():
            return self._inner.get()

    def boot_from_network(self) -> None:
        """Tell the machine's firmware, if this switch can."""
        if isinstance(self._inner, BootOrder):
            with self._turn():
                self._inner.boot_from_network()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        end = time.monotonic() + self._wait_s
        with self._file.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise PowerError(f"{self._device} was in use by others for {self._wait_s:g} s") from None
                    time.sleep(0.02)
            yield

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Our turn with the device, for what is neither switching nor asking for its power."""
        return self._turn()
