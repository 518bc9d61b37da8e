"""Power sequences every machine shares, derived once from the two verbs of `Power`."""

from __future__ import annotations

from collections.abc import Callable

from lab.errors import PowerError
from lab.hosts.protocols import Guard, Power, no_guard


def switch(
    power: Power,
    on: bool,
    *,
    wait: Callable[[float], None],
    tries: int = 50,
    every_s: float = 0.1,
    guard: Guard = no_guard,
) -> None:
    """Switch and read back until the machine says so; `PowerError` when it never does.

    A machine that cannot tell (`get()` is None) is believed.
    """
    power.set(on)
    for _ in range(tries):
        seen = power.get()
        if seen is None or seen is on:
            return
        guard()
        wait(every_s)
    state = "on" if on else "off"
    raise PowerError(f"power: switched {state}, but after {tries * every_s:.0f} s the machine still says otherwise")


def cycle(power: Power, *, wait: Callable[[float], None], off_s: float = 0.0, guard: Guard = no_guard) -> None:
    """Off, verified; rest for `off_s` seconds; on, verified."""
    switch(power, False, wait=wait, guard=guard)
    if off_s:
        wait(off_s)
    switch(power, True, wait=wait, guard=guard)
