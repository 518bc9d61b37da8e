"""Who is being served: the guard and the trace of the step that uses a host now."""

from __future__ import annotations

from lab.hosts.protocols import CommandResult, Guard, Trace, no_guard, no_trace


class Attention:
    """Passed to every part of an opened host once; the step behind it changes."""

    def __init__(self) -> None:
        self._guard: Guard = no_guard
        self._trace: Trace = no_trace

    def turn_to(self, guard: Guard, trace: Trace) -> None:
        """From now on serve these."""
        self._guard, self._trace = guard, trace

    def guard(self) -> None:
        """Raises when waiting has become pointless."""
        self._guard()

    def trace(self, result: CommandResult) -> None:
        """A command has ended."""
        self._trace(result)
