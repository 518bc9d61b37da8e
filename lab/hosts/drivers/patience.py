"""Calls that may block for ever, made so that a limit, the guard and the machine's end can still end the wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lab.hosts.protocols import Guard

POLL_S = 0.2

T = TypeVar("T")


def patiently(
    action: Callable[[], T], *, until: float, name: str, alive: Callable[[], bool | None], guard: Guard
) -> T | None:
    """Do what may block without a limit of its own; None when `until` (monotonic) came first.

    The guard interrupts it, and `EOFError` is raised when the machine is off. What is left behind in the thread ends
    when the caller closes the connection it works on.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, daemon=True, name=name).start()
    while not done.wait(POLL_S):
        if time.monotonic() >= until:
            return None
        if alive() is False:
            raise EOFError("the machine is off")
        guard()
    if errors:
        raise errors[0]
    return results[0]
