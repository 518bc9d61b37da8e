"""Pure stand-ins for a host's abilities, held to the same contracts as the real ones (tests/contracts)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lab.errors import Evidence, HostDiedError, InfraError, StepFailure
from lab.hosts.protocols import CommandResult, Guard, no_guard

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakePower:
    """A machine's power in memory. `history` is every command it took.

    Broken ones: `refuses` raises `InfraError`; `stuck` takes the command and does nothing; `blind` cannot tell its
    state; `slow` answers so many looks with the old state first.
    """

    on: bool = False
    refuses: bool = False
    stuck: bool = False
    blind: bool = False
    slow: int = 0
    history: list[bool] = field(default_factory=list)
    _looks_left: int = 0

    def set(self, on: bool) -> None:
        """Switch."""
        if self.refuses:
            raise InfraError("power: the machine refuses")
        self.history.append(on)
        if not self.stuck and on is not self.on:
            self.on = on
            self._looks_left = self.slow

    def get(self) -> bool | None:
        """The state it admits to."""
        if self.blind:
            return None
        if self._looks_left > 0:
            self._looks_left -= 1
            return not self.on
        return self.on


@dataclass
class ScriptedConsole:
    """A console in memory that says what it is told to: at once by `say`, or piece by piece while somebody waits.

    Each turn of a wait takes a tenth of a second of its own clock and brings the next piece of `script`. What is
    typed is kept in `typed` and handed to `answer`, whose result the console says.
    """

    script: list[bytes] = field(default_factory=list)
    answer: Callable[[bytes], bytes] = field(default=lambda _: b"")
    typed: bytearray = field(default_factory=bytearray)
    _recorded: bytearray = field(default_factory=bytearray)
    _marks: list[tuple[int, datetime]] = field(default_factory=list)
    _now: datetime = _EPOCH

    def say(self, data: bytes) -> None:
        """The machine prints."""
        if data:
            self._marks.append((len(self._recorded), self._now))
            self._recorded += data

    def offset(self) -> int:
        """Where the recording ends now."""
        return len(self._recorded)

    def read(self, start: int, end: int | None = None) -> bytes:
        """The recorded bytes of [start, end)."""
        return bytes(self._recorded[start:end])

    def wait_for(
        self, pattern: re.Pattern[bytes], *, since: int, timeout_s: float, guard: Guard = no_guard
    ) -> re.Match[bytes] | None:
        """The first match after `since`; None after `timeout_s` of the console's own seconds."""
        until = self._now + timedelta(seconds=timeout_s)
        while (found := pattern.search(bytes(self._recorded[since:]))) is None and self._now < until:
            guard()
            self._now += timedelta(seconds=0.1)
            if self.script:
                self.say(self.script.pop(0))
        return found

    def write(self, data: bytes) -> None:
        """Type."""
        self.typed += data
        self.say(self.answer(data))

    def time_of(self, offset: int) -> datetime | None:
        """When the byte at `offset` was said."""
        if not 0 <= offset < len(self._recorded):
            return None
        return max(moment for start, moment in self._marks if start <= offset)


@dataclass(frozen=True, kw_only=True)
class Canned:
    """What a command leaves on a `FakeShell`."""

    stdout: str = ""
    stderr: str = ""
    exit_status: int = 0


@dataclass
class FakeShell:
    """A root shell that answers from a table: the longest key that begins the command line gives the result.

    A key that is not there is a success without output. `ran` is every command line; a `dead` host answers none.
    """

    host: str = "fake"
    results: Mapping[str, Canned | Sequence[Canned]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    stdins: list[bytes] = field(default_factory=list)
    offset_s: float = 0.0
    dead: bool = False
    _uses: dict[str, int] = field(default_factory=dict)

    def run(
        self,
        *argv: str,
        timeout_s: float = 60.0,  # noqa: ARG002 - a fake takes no time
        check: bool = True,
        stdin: bytes = b"",
    ) -> CommandResult:
        """Look the command up; a sequence of results is used up one by one, its last one for ever."""
        command = shlex.join(argv)
        self._reach(command)
        self.stdins.append(stdin)
        canned = self._canned(command)
        result = CommandResult(
            host=self.host, command=command, exit_status=canned.exit_status, stdout=canned.stdout,
            stderr=canned.stderr, seconds=0.0,
        )  # fmt: skip
        if check and canned.exit_status != 0:
            raise StepFailure(
                f"{self.host}: `{command[:100]}` failed (exit status {canned.exit_status})",
                evidence=Evidence(
                    host=self.host, command=command, exit_status=canned.exit_status, output=result.output
                ),
            )
        return result

    def script(self, text: str, *args: str, timeout_s: float = 60.0, check: bool = True) -> CommandResult:
        """As `run` of `sh -c text sh args`."""
        return self.run("sh", "-c", text, "sh", *args, timeout_s=timeout_s, check=check)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 - a fake has no modes
        """Keep a file."""
        self._reach(f"put {path}")
        self.files[path] = data

    def get(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """A file that was kept."""
        self._reach(f"get {path}")
        data = self.files.get(path)
        if data is None or len(data) > limit:
            raise StepFailure(f"{self.host}: {path} is not there, or too long", evidence=Evidence(host=self.host))
        return data

    def clock_offset(self) -> tuple[float, float]:
        """`offset_s`, exactly."""
        self._reach("date")
        return self.offset_s, 0.0

    def _reach(self, command: str) -> None:
        if self.dead:
            raise HostDiedError(f"{self.host}: its machine is off", evidence=Evidence(host=self.host, command=command))
        self.ran.append(command)

    def _canned(self, command: str) -> Canned:
        keys = [key for key in self.results if command.startswith(key)]
        if not keys:
            return Canned()
        key = max(keys, key=len)
        found = self.results[key]
        if isinstance(found, Canned):
            return found
        use = self._uses.get(key, 0)
        self._uses[key] = use + 1
        return found[min(use, len(found) - 1)]
