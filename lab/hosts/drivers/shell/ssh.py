"""A root shell over ssh: one connection kept open, each command with a limit, each wait interrupted by the guard."""

from __future__ import annotations

import base64
import select
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

import paramiko
from fabric import Config, Connection

from lab.errors import Evidence, HostDiedError, InfraError, StepFailure
from lab.hosts.drivers.patience import POLL_S, patiently
from lab.hosts.protocols import CommandResult, Guard, Trace, no_guard, no_trace

KEPT_OUTPUT = 4 << 20
_EVIDENCE = 20_000
_CONNECT_S = 20.0
_ANSWER_S = 6.0

_LOST = (paramiko.SSHException, OSError, EOFError)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a host's sshd is now, the key that opens it, and the ssh-ed25519 key (base64) it must show."""

    address: str
    port: int
    client_key: Path
    host_public: str
    user: str = "root"


@dataclass
class _Kept:
    """Bounded output: the beginning and the end, and how much there was."""

    limit: int
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        if len(self.tail) > self.limit:
            del self.tail[: len(self.tail) - self.limit // 2]

    def all(self) -> bytes:
        tail = self.tail[-(self.limit // 2) :]
        lost = self.size - len(self.head) - len(tail)
        between = b"\n[... %d bytes left out ...]\n" % lost if lost > 0 else b""
        return bytes(self.head) + between + bytes(tail)


@dataclass(frozen=True)
class _Outcome:
    exit_status: int
    stdout: bytes
    stdout_size: int
    stderr: bytes
    seconds: float


class RunningCommand:
    """A command at work on a host, its input and output (see `lab.hosts.drivers.guest.feed.Stream`)."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def read(self, timeout_s: float) -> bytes | None:
        """What was printed since; b"" when nothing was within `timeout_s`, None when the command has ended."""
        self._channel.settimeout(timeout_s)
        try:
            return self._channel.recv(1 << 16) or None
        except TimeoutError:
            return b""

    def write(self, data: bytes) -> None:
        """Feed its input; OSError when it has ended."""
        self._channel.sendall(data)

    def close(self) -> None:
        """End it: its input and output are closed."""
        self._channel.close()


class SshShell:
    """The `Shell` of a host. Safe to use from several threads.

    `endpoint` is asked at each new connection (a power cycle changes it; None: the host is off). `alive` says whether
    the machine is on, None where nobody can tell; `tail` gives the console's last lines for evidence.
    """

    def __init__(
        self,
        host: str,
        endpoint: Callable[[], Endpoint | None],
        *,
        alive: Callable[[], bool | None],
        tail: Callable[[], str] = lambda: "",
        guard: Guard = no_guard,
        trace: Trace = no_trace,
    ) -> None:
        self._host = host
        self._trace = trace
        self._endpoint = endpoint
        self._alive = alive
        self._tail = tail
        self._guard = guard
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True, stdin: bytes = b"") -> CommandResult:
        """Run one command, each argument quoted (see `protocols.Shell.run`)."""
        command = shlex.join(argv)
        outcome = self._execute(command, stdin, timeout_s, KEPT_OUTPUT)
        result = CommandResult(
            host=self._host,
            command=command,
            exit_status=outcome.exit_status,
            stdout=outcome.stdout.decode(errors="replace"),
            stderr=outcome.stderr.decode(errors="replace"),
            seconds=outcome.seconds,
        )
        self._trace(result)
        if check and result.exit_status != 0:
            raise self._failed(command, outcome)
        return result

    def script(self, text: str, *args: str, timeout_s: float = 60.0, check: bool = True) -> CommandResult:
        """Run a shell script of ours with `args` as $1, $2 …"""
        return self.run("sh", "-c", text, "sh", *args, timeout_s=timeout_s, check=check)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file; it appears whole or not at all."""
        text = 'umask 077 && cat >"$1.part" && chmod "$2" "$1.part" && mv -f "$1.part" "$1"'
        limit = 60.0 + len(data) / 200_000  # an emulated host deciphers slowly
        self.run("sh", "-c", text, "sh", path, f"{mode:o}", stdin=data, timeout_s=limit)

    def get(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """Read a file of at most `limit` bytes."""
        command = shlex.join(["head", "-c", str(limit + 1), "--", path])
        outcome = self._execute(command, b"", 60.0 + limit / 200_000, 4 * (limit + 1))
        if outcome.exit_status != 0:
            raise self._failed(command, outcome)
        if outcome.stdout_size > limit:
            raise StepFailure(f"{self._host}: {path} is longer than {limit} bytes", evidence=Evidence(host=self._host))
        return outcome.stdout

    def start(self, *argv: str) -> RunningCommand:
        """Start a command that goes on; the caller closes it."""
        return RunningCommand(self._started(shlex.join(argv), time.monotonic() + _CONNECT_S, _CONNECT_S))

    def dial(self, port: int, *, timeout_s: float = _CONNECT_S) -> paramiko.Channel:
        """A connection to a port of dom0's own (127.0.0.1), through the shell's; the caller closes it.

        Raises `HostDiedError` when the host cannot be reached, and paramiko's ChannelException when nothing listens.
        """
        until, what = time.monotonic() + timeout_s, f"connect to port {port}"

        def open_channel() -> paramiko.Channel | None:
            transport, ends = _transport(self._connected(timeout_s)), (("127.0.0.1", port), ("127.0.0.1", 0))
            return self._patiently(lambda: transport.open_channel("direct-tcpip", *ends, timeout=timeout_s), until)

        try:
            channel = open_channel()
        except paramiko.ChannelException:
            raise
        except _LOST as error:
            self.close()
            self._dead(what, error)
        if channel is None:
            self._overdue(what, timeout_s, b"", b"")
        return channel

    def clock_offset(self) -> tuple[float, float]:
        """(host's wall clock minus ours, uncertainty), the best of five looks."""
        looks = []
        for _ in range(5):
            before = time.time()
            text = self.run("bash", "-c", "echo $EPOCHREALTIME", timeout_s=30.0).stdout  # its date has no %N
            after = time.time()
            try:
                looks.append(((after - before) / 2, float(text) - (before + after) / 2))
            except ValueError as error:
                raise InfraError(f"{self._host}: its clock says {text[:40]!r}") from error
        uncertainty, offset = min(looks)
        return offset, uncertainty

    def connect(self, *, timeout_s: float) -> None:
        """Make sure the shell answers; `HostDiedError` when it does not in time."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                self._connected(max(1.0, min(_CONNECT_S, until - time.monotonic())))
                return
            except HostDiedError:
                if time.monotonic() >= until or self._alive() is False:
                    raise
                self._guard()
                time.sleep(0.3)

    def close(self) -> None:
        """Let the connection go; the next command makes a new one."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _execute(self, command: str, stdin: bytes, timeout_s: float, kept: int) -> _Outcome:
        started = time.monotonic()
        until = started + timeout_s
        channel = self._started(command, until, timeout_s)
        stdout, stderr = _Kept(kept), _Kept(KEPT_OUTPUT)
        try:
            self._converse(channel, command, stdin, until, timeout_s, stdout, stderr)
            status = channel.recv_exit_status() if channel.exit_status_ready() else -1
        finally:
            channel.close()
        return _Outcome(status, stdout.all(), stdout.size, stderr.all(), time.monotonic() - started)

    def _started(self, command: str, until: float, timeout_s: float) -> paramiko.Channel:
        """A channel on which the command runs; made anew once, as long as the host has not heard of it."""
        try:
            channel = self._channel(until)
        except _LOST:
            self.close()
            try:
                channel = self._channel(until)
            except _LOST as error:
                self._dead(command, error)
        if channel is None:
            self.close()
            self._overdue(command, timeout_s, b"", b"")
        opened = channel

        def begin() -> bool:
            opened.exec_command(command)
            return True

        try:
            begun = self._patiently(begin, until)
        except _LOST as error:
            self._dead(command, error)
        except BaseException:
            opened.close()
            raise
        if begun is None:
            opened.close()
            self._overdue(command, timeout_s, b"", b"")
        return opened

    def _channel(self, until: float) -> paramiko.Channel | None:
        connection = self._connected(max(1.0, min(_CONNECT_S, until - time.monotonic())))
        transport = _transport(connection)
        return self._patiently(lambda: transport.open_session(timeout=3600.0), until)

    def _converse(
        self, channel: paramiko.Channel, command: str, stdin: bytes, until: float, timeout_s: float,
        stdout: _Kept, stderr: _Kept,
    ) -> None:  # fmt: skip
        """Feed stdin and take both outputs until the command has ended."""
        channel.setblocking(0)
        ready = select.poll()
        ready.register(channel.fileno(), select.POLLIN)
        unsent = memoryview(stdin)
        sending = True
        looked = time.monotonic()
        while True:
            if sending:
                unsent, sending = _feed(channel, unsent)
            while channel.recv_ready():
                stdout.add(channel.recv(1 << 16))
            while channel.recv_stderr_ready():
                stderr.add(channel.recv_stderr(1 << 16))
            if (channel.exit_status_ready() and channel.eof_received) or channel.closed:
                if not channel.recv_ready() and not channel.recv_stderr_ready():
                    break
                continue
            # At the end of both streams the pipe stays readable while the exit status is still on its way.
            if channel.eof_received:
                channel.status_event.wait(0.05)
            else:
                ready.poll(20 if sending else POLL_S * 1000)
            now = time.monotonic()
            if now - looked >= POLL_S:
                looked = now
                if self._alive() is False:
                    self._dead(command, None)
                self._guard()
            if now >= until:
                channel.close()
                self._overdue(command, timeout_s, stdout.all(), stderr.all())
        if channel.exit_status < 0 and self._lost(channel.get_transport()):
            self._dead(command, None)

    def _lost(self, transport: paramiko.Transport) -> bool:
        """Whether a channel closed because its connection broke; that shows on the connection a moment later."""
        for _ in range(10):
            if not transport.is_active() or self._alive() is False:
                return True
            time.sleep(0.05)
        return False

    def _connected(self, timeout_s: float) -> Connection:
        with self._lock:
            found = self._connection
            if found is not None and found.is_connected:
                return found
            if found is not None:
                found.close()
                self._connection = None
            endpoint = self._endpoint()
            if endpoint is None or self._alive() is False:
                self._dead("", None)
            connection = _connection_to(endpoint, timeout_s)
            try:
                done = self._patiently(lambda: (connection.open(),), time.monotonic() + timeout_s + 5.0)
            except paramiko.BadHostKeyException as error:
                raise InfraError(f"{self._host}: something else answers at its address (another host key)") from error
            except _LOST as error:
                connection.close()
                self._dead("", error)
            except BaseException:
                connection.close()
                raise
            if done is None:
                connection.close()
                self._dead("", None)
            self._connection = connection
            return connection

    def _patiently(self, action: Callable[[], T], until: float) -> T | None:
        """Do what may block without a limit of its own; None when `until` came first. The guard interrupts it."""
        return patiently(action, until=until, name=f"ssh-{self._host}", alive=self._alive, guard=self._guard)

    def _failed(self, command: str, outcome: _Outcome) -> StepFailure:
        output = (outcome.stdout + outcome.stderr)[-_EVIDENCE:].decode(errors="replace")
        last = output.strip().rpartition("\n")[2][:160]
        how = f"exit status {outcome.exit_status}" if outcome.exit_status >= 0 else "killed by a signal"
        return StepFailure(
            f"{self._host}: `{_short(command)}` failed ({how}){': ' + last if last else ''}",
            evidence=Evidence(host=self._host, command=command, exit_status=outcome.exit_status, output=output),
        )

    def _overdue(self, command: str, timeout_s: float, stdout: bytes, stderr: bytes) -> NoReturn:
        """The limit has passed: the product hangs, or the whole host does."""
        evidence = Evidence(
            host=self._host, command=command, output=(stdout + stderr)[-_EVIDENCE:].decode(errors="replace"),
            console_tail=self._tail(),
        )  # fmt: skip
        if not self._answers():
            self.close()
            raise HostDiedError(
                f"{self._host}: its shell does not answer any more (during `{_short(command)}`)", evidence=evidence
            )
        raise StepFailure(f"{self._host}: `{_short(command)}` did not end within {timeout_s:g} s", evidence=evidence)

    def _answers(self) -> bool:
        """Whether the host still opens a channel."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            return False
        transport = _transport(connection)
        try:
            channel = self._patiently(lambda: transport.open_session(timeout=_ANSWER_S), time.monotonic() + _ANSWER_S)
        except _LOST:
            return False
        if channel is not None:
            channel.close()
        return channel is not None

    def _dead(self, command: str, cause: BaseException | None) -> NoReturn:
        # QEMU's sockets close a moment before its process is seen to be gone.
        for _ in range(10):
            if self._alive() is False:
                break
            time.sleep(0.05)
        what = "its machine is off" if self._alive() is False else "its shell cannot be reached"
        during = f" (during `{_short(command)}`)" if command else ""
        why = f": {cause}" if cause is not None and self._alive() is not False else ""
        raise HostDiedError(
            f"{self._host}: {what}{during}{why}",
            evidence=Evidence(host=self._host, command=command or None, console_tail=self._tail()),
        ) from cause


def _connection_to(endpoint: Endpoint, timeout_s: float) -> Connection:
    config = Config(overrides={"load_ssh_configs": False, "user": endpoint.user})
    connection = Connection(
        host=endpoint.address,
        port=endpoint.port,
        config=config,
        connect_timeout=max(1, int(timeout_s)),
        connect_kwargs={
            "pkey": paramiko.Ed25519Key(filename=str(endpoint.client_key)),
            "look_for_keys": False,
            "allow_agent": False,
            "banner_timeout": timeout_s,
            "auth_timeout": timeout_s,
        },
    )
    # Only the key we gave the host is accepted; whatever the user's own known_hosts say.
    known = f"[{endpoint.address}]:{endpoint.port}" if endpoint.port != 22 else endpoint.address
    host_key = paramiko.Ed25519Key(data=base64.b64decode(endpoint.host_public))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    connection.client.get_host_keys().add(known, "ssh-ed25519", host_key)
    return connection


def _transport(connection: Connection) -> paramiko.Transport:
    transport = connection.transport
    if not isinstance(transport, paramiko.Transport):
        raise EOFError("the connection is gone")
    return transport


def _feed(channel: paramiko.Channel, unsent: memoryview) -> tuple[memoryview, bool]:
    """Send what the window takes; (what is left, whether there is anything left to do)."""
    try:
        while unsent and channel.send_ready():
            unsent = unsent[channel.send(bytes(unsent[: 1 << 15])) :]
        if unsent:
            return unsent, True
        channel.shutdown_write()
    except OSError:
        pass  # the command has closed its input: its own affair
    return unsent[:0], False


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 100 else line[:97] + "..."
