"""What a driver offers: the fewest verbs, one protocol an ability.

Machine and guest drivers implement these; services and test cases see nothing else. Every wait has a limit and is
interrupted by the *guard*: a callable that returns nothing, or raises because waiting has become pointless (the
console shows a panic, the machine is off, the flight was aborted, this worker lost the job).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

Guard = Callable[[], None]
"""Called while waiting, a few times a second; raises when the wait must end."""


def no_guard() -> None:
    """Guard of a wait that only its limit ends."""


class Power(Protocol):
    """A machine's power, with read-back."""

    def set(self, on: bool) -> None:
        """Switch on or off; returns when the command was taken. Raises `PowerError` when it was refused,
        and another `InfraError` when it could not even be given."""

    def get(self) -> bool | None:
        """What the machine says of itself; None when this hardware cannot tell."""


@runtime_checkable
class BootOrder(Protocol):
    """What some `Power` can do beside: tell the machine's firmware what to boot (a BMC can, an outlet cannot)."""

    def boot_from_network(self) -> None:
        """Boot from the network at the next power-on, and only then. Raises `InfraError` when that was refused."""


class Console(Protocol):
    """A serial console that is recorded from power-on to power-off, whoever listens.

    Offsets are bytes since the recording began and never go back; a power cycle does not reset them.
    """

    def offset(self) -> int:
        """Where the recording ends now: the offset of the next byte."""

    def read(self, start: int, end: int | None = None) -> bytes:
        """The recorded bytes of [start, end), to the present end when `end` is None."""

    def wait_for(
        self, pattern: re.Pattern[bytes], *, since: int, timeout_s: float, guard: Guard = no_guard
    ) -> re.Match[bytes] | None:
        """The first match after offset `since`; None when `timeout_s` seconds passed without one."""

    def write(self, data: bytes) -> None:
        """Type `data` on the console."""

    def time_of(self, offset: int) -> datetime | None:
        """When the byte at `offset` was received (UTC, to about 0.1 s); None when it was not yet."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What a command on a host left: exit status and output (UTF-8, undecodable bytes replaced)."""

    host: str
    command: str
    exit_status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def output(self) -> str:
        """Both streams, errors last."""
        return self.stdout + self.stderr


Trace = Callable[[CommandResult], None]
"""Told of every command that ended on a host."""


def no_trace(result: CommandResult) -> None:
    """Trace that forgets."""


class Shell(Protocol):
    """Commands on a host, as root."""

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True, stdin: bytes = b"") -> CommandResult:
        """Run one command; each argument is quoted, so text from anywhere is only ever text.

        With `check`, a non-zero exit raises `StepFailure` with the evidence. Raises `StepFailure` when the limit
        passes and `HostDiedError` when the host cannot be reached any more.
        """

    def script(self, text: str, *args: str, timeout_s: float = 60.0, check: bool = True) -> CommandResult:
        """Run a shell script of ours (`sh -c text`), `args` as $1, $2 …; never put foreign text into `text`."""

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file."""

    def get(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """Read a file, at most `limit` bytes (`StepFailure` when there is none, or it is longer)."""

    def clock_offset(self) -> tuple[float, float]:
        """(host's wall clock minus ours, uncertainty), in seconds."""


Start = Literal["cold", "checkpoint", "netboot"]
"""How a machine came up: from power-on by its own loader, from a saved memory, or by its firmware over the network."""


class StartRequest(StrEnum):
    """How a machine is to come up: *auto* takes whatever is quickest."""

    AUTO = "auto"
    COLD = "cold"
    NETBOOT = "netboot"


@dataclass(frozen=True, kw_only=True)
class Started:
    """How a host came up at its last power-on, and a line that says it to people."""

    start: Start
    note: str


@dataclass(frozen=True, kw_only=True)
class BootTarget:
    """What a host is to boot: files on the controller and typed arguments.

    `xen_args` and `dom0_args` are lists of single arguments; an argument may hold letters, digits and `._:/=@,+-` only
    (no blank, quote or newline), so that none can smuggle another into a boot script. `media` is a read-only file
    system handed to dom0; `overlays` are archives unpacked over the initramfs, in their order. `key` names the whole
    (what was booted), for host reuse. What was built from source can be recognised when it runs: `build_id` is the
    hypervisor's (empty: not known), `checksums` maps programs of the toolstack to their SHA-256. `start` is how the
    host is to come up.
    """

    key: str
    hypervisor: Path
    kernel: Path
    initramfs: Path
    xen_args: tuple[str, ...] = ()
    dom0_args: tuple[str, ...] = ()
    media: Path | None = None
    overlays: tuple[Path, ...] = ()
    build_id: str = ""
    checksums: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    start: StartRequest = StartRequest.AUTO


BOOT_ARGUMENT = re.compile(r"[A-Za-z0-9._:/=@,+-]+")


class Boot(Protocol):
    """Decides what the machine boots at its next power-on."""

    def set_target(self, target: BootTarget) -> None:
        """Take effect at the next power-on; raises `ConfigError` when an argument is not allowed."""

    def wait_ready(self, *, timeout_s: float, guard: Guard = no_guard) -> None:
        """Return once dom0 says it is ready and its shell answers; `InfraError` with the console's tail otherwise."""

    def started(self) -> Started:
        """How the host came up; `InfraError` when it never did."""


class GuestConsole(Protocol):
    """What a guest prints, and commands its agent runs (images/README.md has the agent's protocol)."""

    def text(self) -> str:
        """Everything the guest has printed on this host so far (untrusted; the last MiB)."""

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """First match of a regular expression, now or later; `StepFailure` with the tail after `timeout_s`."""

    def heartbeats(self) -> Sequence[Heartbeat]:
        """The heartbeats printed so far, oldest first."""

    def command(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        """Ask the guest's agent and wait for its reply; `StepFailure` when none comes."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """One sign of life of a guest: `seq` counts up by one a second, `mono_s` is its CLOCK_MONOTONIC."""

    seq: int
    wall_s: float
    mono_s: float
    maxgap_ms: int
    memory_ok: bool


@dataclass(frozen=True, kw_only=True)
class AgentReply:
    """The agent's answer: `ok`, its text, and the lines a `sh` command printed."""

    ok: bool
    text: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GuestDisk:
    """A virtual disk of a guest: image `path` in dom0, `format` raw | qcow2 | vhd, seen in the guest as `vdev`."""

    path: str
    format: str
    vdev: str = "xvda"
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class GuestConfig:
    """A guest to create. `kind` is pv, pvh or hvm; memory in MiB; kernel and ramdisk are paths in dom0.

    An HVM guest without a kernel boots from its first disk.
    """

    name: str
    kind: str
    memory_mib: int
    kernel: str
    ramdisk: str
    kernel_args: tuple[str, ...] = ()
    vcpus: int = 1
    disks: tuple[GuestDisk, ...] = ()
    bridge: str | None = None
    mac: str | None = None
    options: Mapping[str, str | int] | None = None
    """Further xl.cfg settings, name to value; names are checked, values quoted."""


@dataclass(frozen=True, kw_only=True)
class GuestState:
    """A domain as the toolstack lists it: `state` is xl's letters (r, b, p, s, c, d)."""

    name: str
    domid: int
    memory_mib: int
    vcpus: int
    state: str


DEFAULT_TOOLSTACK = "xl"
"""The toolstack of a job that names none in its runvar `toolstack`."""


class Toolstack(Protocol):
    """Guests of one host (OSSTest's Toolstack): xl, or libvirt behind the same verbs.

    Each verb raises `StepFailure` with the toolstack's own output when the toolstack says no.
    """

    def version(self) -> str:
        """What answers: the toolstack's name and its version, e.g. libvirt 9.0.0."""

    def create(self, config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        """Create and start a guest."""

    def guests(self) -> Sequence[GuestState]:
        """All domains but dom0."""

    def find(self, name: str) -> GuestState | None:
        """The domain of this name, or None."""

    def shutdown(self, name: str, *, timeout_s: float = 200.0) -> None:
        """Ask the guest to shut down and wait until it is gone."""

    def destroy(self, name: str) -> None:
        """End the guest at once."""

    def save(self, name: str, path: str, *, timeout_s: float = 200.0) -> None:
        """Suspend the guest to a file; it is gone from the host afterwards."""

    def restore(self, path: str, *, timeout_s: float = 200.0) -> None:
        """Resume a saved guest."""

    def migrate_local(self, name: str, *, timeout_s: float = 400.0) -> None:
        """Live-migrate the guest to this very host."""

    def migrate(self, name: str, target: HostAccess, *, timeout_s: float = 400.0) -> int | None:
        """Live-migrate the guest to another host over the lab's network; returns the bytes sent, if known."""

    def console(self, name: str) -> GuestConsole:
        """The guest's console."""


class HostAccess(Protocol):
    """A host as a step sees it while its job holds the lease."""

    @property
    def name(self) -> str:
        """The host's name in the lab."""

    @property
    def address(self) -> str:
        """Its address on the lab's network (dom0), without prefix length."""

    @property
    def power(self) -> Power:
        """Its power."""

    @property
    def console(self) -> Console:
        """Its serial console."""

    @property
    def boot(self) -> Boot:
        """What it boots."""

    @property
    def shell(self) -> Shell:
        """A root shell in dom0."""

    @property
    def toolstack(self) -> Toolstack:
        """Its guests."""

    @property
    def logs(self) -> Mapping[str, Path]:
        """Logs the driver itself keeps on the controller, by name (e.g. qemu)."""

    def attend(self, *, guard: Guard = no_guard, trace: Trace = no_trace) -> None:
        """From now on every wait on this host is interrupted by `guard`, and every command is told to `trace`."""

    def close(self) -> None:
        """Let go of connections; the host itself stays as it is."""


class Machines(Protocol):
    """The driver table at work: opens a host's abilities by its name."""

    def open(self, host: str, *, toolstack: str = DEFAULT_TOOLSTACK) -> HostAccess:
        """The host's abilities, its guests by the toolstack of this name (xl or libvirt).

        Raises `ConfigError` if the host or the toolstack is unknown.
        """

    def power_off(self, host: str) -> None:
        """Switch the host off whatever state it is in; used by the reaper and after an abort. Idempotent."""
