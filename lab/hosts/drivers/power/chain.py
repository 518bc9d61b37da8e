"""Several switches of one machine, in order: what the first does not do, the next one does; all is read back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.errors import InfraError, PowerError
from lab.hosts.protocols import BootOrder, Power


@dataclass(frozen=True, kw_only=True)
class Link:
    """A switch with its name, how often it is tried, and how long the machine may take to say that it was done."""

    name: str
    power: Power
    tries: int = 3
    settle_s: float = 30.0


class PowerChain:
    """The power of a machine that has one switch or more (a BMC, then the outlet it hangs on).

    A switch that fails, or after which the machine still says otherwise, is tried again and then given up for the next
    one. A switch that cannot be read back is believed, and whoever boots the machine sees by its console.
    """

    def __init__(
        self, links: Sequence[Link], *, wait: Callable[[float], None] = time.sleep, every_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._links = tuple(links)
        self._wait = wait
        self._every_s = every_s
        self._clock = clock

    def set(self, on: bool) -> None:
        """Switch; `PowerError` that says of each switch what was wrong with it, when none did it."""
        troubles = []
        for link in self._links:
            trouble = ""
            for number in range(1, link.tries + 1):
                try:
                    link.power.set(on)
                    if self._settled(link, on):
                        return
                    trouble = f"it took the command, but the machine is still {'off' if on else 'on'}"
                except InfraError as error:
                    trouble = error.message
                if number < link.tries:
                    self._wait(min(2.0 ** (number - 1), 10.0) * self._every_s)
            troubles.append(f"{link.name}: {trouble}")
        raise PowerError(f"the machine cannot be switched {'on' if on else 'off'}: {'; '.join(troubles)}")

    def get(self) -> bool | None:
        """What the first switch that can tell says; an error of the last one when none can."""
        failed: InfraError | None = None
        for link in self._links:
            try:
                if (seen := link.power.get()) is not None:
                    return seen
            except InfraError as error:
                failed = error
        if failed is not None:
            raise failed
        return None

    def boot_from_network(self) -> None:
        """Tell the machine's firmware to boot from the network next, by whichever switch can.

        One that refuses is not fatal: the firmware's own order may be right, and a machine that never asks for its
        boot script is told as such.
        """
        for link in self._links:
            if isinstance(link.power, BootOrder):
                with contextlib.suppress(InfraError):
                    link.power.boot_from_network()
                    return

    def _settled(self, link: Link, on: bool) -> bool:
        end = self._clock() + link.settle_s
        while True:
            seen = link.power.get()
            if seen is None or seen is on:
                return True
            if self._clock() >= end:
                return False
            self._wait(self._every_s)
