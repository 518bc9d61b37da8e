"""A guest's console, read from the log that xenconsoled keeps in dom0."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from lab.errors import Evidence, StepFailure
from lab.hosts.drivers.guest import agent
from lab.hosts.drivers.guest.feed import KEPT, GuestFeed
from lab.hosts.protocols import AgentReply, Guard, Heartbeat, no_guard

LONGEST_PAUSE_S = 0.25

T = TypeVar("T")


class XlConsole:
    """The `GuestConsole` of one guest on one host. Only what is new is fetched.

    A guest that came by migration is logged under its name of arrival; both logs are read. Text is in the order it
    came on each name, heartbeats in that of their numbers.
    """

    def __init__(
        self,
        *,
        feed: GuestFeed,
        host: str,
        name: str,
        guard: Guard = no_guard,
    ) -> None:
        self._feed = feed
        self._host = host
        self._name = name
        self._guard = guard
        self._logs = log_names(name)

    def text(self) -> str:
        """Everything the guest has printed on this host so far (untrusted; the last MiB)."""
        return b"".join(self._feed.log(name)[1] for name in self._logs).decode(errors="replace")[-KEPT:]

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """First match of a regular expression, now or later; `StepFailure` with the tail after `timeout_s`."""
        compiled = re.compile(pattern)
        found = self._until(lambda: compiled.search(self.text()), timeout_s)
        if found is None:
            raise self._silent(f"did not print {pattern!r} within {timeout_s:.0f} s")
        return found

    def heartbeats(self) -> Sequence[Heartbeat]:
        """The heartbeats printed so far, oldest first."""
        beats = {beat.seq: beat for beat in agent.heartbeats(self.text())}
        return [beats[seq] for seq in sorted(beats)]

    def command(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        """Ask the guest's agent and wait for its reply; `StepFailure` when none comes."""
        ident = secrets.token_hex(4)
        line = agent.request(ident, verb, argument).rstrip("\n")
        self._feed.type(self._name, line, timeout_s=min(30.0, timeout_s))
        found = self._until(lambda: agent.reply(self.text(), ident), timeout_s)
        if found is None:
            raise self._silent(f"did not answer {verb!r} within {timeout_s:.0f} s")
        return found

    def _until(self, look: Callable[[], T | None], timeout_s: float) -> T | None:
        until = time.monotonic() + timeout_s
        while True:
            found = look()
            if found is not None or time.monotonic() >= until:
                return found
            self._guard()
            self._feed.wait(LONGEST_PAUSE_S)

    def _silent(self, what: str) -> StepFailure:
        return StepFailure(
            f"{self._host}: guest {self._name} {what}",
            evidence=Evidence(host=self._host, console_tail=self.text()[-6000:]),
        )


def log_names(name: str) -> tuple[str, str]:
    """The logs a guest may have: under its own name, and under the one it arrives with when it migrates."""
    return f"guest-{name}.log", f"guest-{name}--incoming.log"
