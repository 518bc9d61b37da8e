"""A guest's console, read from the log that xenconsoled keeps in dom0."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from lab.errors import Evidence, InfraError, StepFailure
from lab.hosts.drivers.guest import agent
from lab.hosts.protocols import AgentReply, Guard, Heartbeat, Shell, no_guard

LOGS = "/var/log/xen/console"
_KEPT = 1 << 20
_POLL_S = 0.25

T = TypeVar("T")

# $1 the most bytes to hand out, then pairs of a file and how much of it is known. One line a file: where the piece
# begins (0 again when the file was made anew), whether more is waiting, and the piece in base64.
_FETCH = """
most=$1; shift
while [ $# -gt 0 ]; do
  size=$(stat -c %s "$1" 2>/dev/null || echo 0)
  at=$2; [ "$size" -lt "$at" ] && at=0
  more=0; [ $((size - at)) -gt "$most" ] && more=1
  echo "$at $more $([ "$size" -gt "$at" ] && tail -c +$((at + 1)) "$1" | head -c "$most" | base64 -w 0)"
  shift 2
done
"""

# $1 the guest, $2 the line.
_TYPE = """
id=$(xl domid "$1") && tty=$(xenstore-read "/local/domain/$id/console/tty") && printf '%s\\n' "$2" >"$tty"
"""


class XlConsole:
    """The `GuestConsole` of one guest on one host. Only what is new is fetched.

    A guest that came by migration is logged under its name of arrival; both logs are read. Text is in the order it
    was fetched, heartbeats in that of their numbers.
    """

    def __init__(
        self,
        *,
        shell: Shell,
        host: str,
        name: str,
        guard: Guard = no_guard,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._shell = shell
        self._host = host
        self._name = name
        self._guard = guard
        self._wait = wait
        self._lock = threading.Lock()
        self._known = {f"{LOGS}/guest-{name}.log": 0, f"{LOGS}/guest-{name}--incoming.log": 0}
        self._unfinished = dict.fromkeys(self._known, b"")
        self._text = ""
        self._beats: dict[int, Heartbeat] = {}

    def text(self) -> str:
        """Everything the guest has printed on this host so far (untrusted; the last MiB)."""
        with self._lock:
            self._fetch()
            return self._all()

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """First match of a regular expression, now or later; `StepFailure` with the tail after `timeout_s`."""
        compiled = re.compile(pattern)
        found = self._until(lambda: compiled.search(self.text()), timeout_s)
        if found is None:
            raise self._silent(f"did not print {pattern!r} within {timeout_s:.0f} s")
        return found

    def heartbeats(self) -> Sequence[Heartbeat]:
        """The heartbeats printed so far, oldest first."""
        with self._lock:
            self._fetch()
            return [self._beats[seq] for seq in sorted(self._beats)]

    def command(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        """Ask the guest's agent and wait for its reply; `StepFailure` when none comes."""
        ident = secrets.token_hex(4)
        line = agent.request(ident, verb, argument).rstrip("\n")
        self._shell.script(_TYPE, self._name, line, timeout_s=min(30.0, timeout_s))
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
            self._wait(_POLL_S)

    def _silent(self, what: str) -> StepFailure:
        return StepFailure(
            f"{self._host}: guest {self._name} {what}",
            evidence=Evidence(host=self._host, console_tail=self._all()[-6000:]),
        )

    def _all(self) -> str:
        rest = b"".join(self._unfinished.values()).decode(errors="replace")
        return (self._text + rest)[-_KEPT:]

    def _fetch(self) -> None:
        more = True
        while more:
            more = False
            arguments = [str(word) for pair in self._known.items() for word in pair]
            lines = self._shell.script(_FETCH, str(_KEPT), *arguments).stdout.splitlines()
            if len(lines) != len(self._known):
                raise InfraError(f"{self._host}: the console log of {self._name} cannot be read")
            for path, line in zip(self._known, lines, strict=True):
                more |= self._take(path, line)

    def _take(self, path: str, line: str) -> bool:
        words = line.split()
        try:
            start, more, piece = int(words[0]), words[1] == "1", base64.b64decode("".join(words[2:]), validate=True)
        except (IndexError, ValueError, binascii.Error) as error:
            raise InfraError(f"{self._host}: the console log of {self._name} came garbled") from error
        if start < self._known[path]:
            self._unfinished[path] = b""
        self._known[path] = start + len(piece)
        whole, newline, rest = (self._unfinished[path] + piece).rpartition(b"\n")
        self._unfinished[path] = rest[-_KEPT:]
        text = (whole + newline).decode(errors="replace")
        self._text = (self._text + text)[-_KEPT:]
        for beat in agent.heartbeats(text):
            self._beats.setdefault(beat.seq, beat)
        return more
