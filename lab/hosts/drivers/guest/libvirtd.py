"""The connection to the libvirt daemon of a host's dom0, and what its errors mean."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import libvirt
import paramiko

from lab.errors import ConfigError, Evidence, InfraError, LabError, StepFailure
from lab.hosts.drivers.patience import patiently
from lab.hosts.drivers.shell.forward import Forward
from lab.hosts.protocols import CommandResult, Guard, Shell, Trace, no_guard, no_trace

PORT = 16509
"""Where the daemon listens, in dom0 and on the lab's own network."""
LOGS = "/var/log/libvirt"
_OPEN_S = 40.0
_LOG_LINES = 40

T = TypeVar("T")

# Each error is raised where it happens; libvirt would print it besides.
libvirt.registerErrorHandler(lambda _context, _error: None, None)

# Prints "none" where the image has no daemon, "dead" where it does not run; then the end of its logs.
_LOOK = f"""
command -v libvirtd >/dev/null || {{ echo none; exit 0; }}
pidof libvirtd >/dev/null && echo runs || echo dead
tail -n {_LOG_LINES} {LOGS}/*.log {LOGS}/libxl/libxl-driver.log 2>/dev/null
"""


class Libvirtd:
    """One kept connection, opened at the first call and again after it broke.

    It goes through the host's ssh connection to the socket `path`, which lies in a folder of the lab's user alone.
    Calls are made in a thread of their own: a limit, the guard and the machine's end cut the connection and with it
    the call. What the daemon had begun goes on (its Xen driver cannot abort a save or a migration): a job that gave up
    has not passed, and its hosts are not used as they stand.
    """

    def __init__(
        self,
        host: str,
        shell: Shell,
        path: str,
        dial: Callable[[int], paramiko.Channel],
        *,
        alive: Callable[[], bool | None],
        guard: Guard = no_guard,
        trace: Trace = no_trace,
        connect: Callable[[str], Any] = libvirt.open,
    ) -> None:
        self._host = host
        self._shell = shell
        self._path = path
        self._dial = dial
        self._alive = alive
        self._guard = guard
        self._trace = trace
        self._connect = connect
        self._forward: Forward | None = None
        self._connection: Any = None

    def call(self, what: str, action: Callable[[Any], T], *, timeout_s: float = 60.0) -> T:
        """What `action` makes of the connection (a `libvirt.virConnect`); `what` names it to people.

        `StepFailure` with libvirt's message when libvirt says no, when it takes too long, and when the daemon has
        died; `HostDiedError` when the host has, `InfraError` when it is only our way to the daemon.
        """
        started = time.monotonic()
        try:
            answer = self._within(lambda: action(self._connection), started + timeout_s)
        except libvirt.libvirtError as error:
            message = said_by(error)
            self._told(what, started, message)
            if not self._whole():
                self._lost(what, message)
            raise self._failure(what, f"libvirt {what} failed: {message}", message) from error
        except (EOFError, OSError, paramiko.SSHException) as error:
            self._lost(what, str(error))
        except BaseException:
            self.close()
            raise
        if answer is None:
            self.close()
            self._told(what, started, "no answer")
            raise self._failure(what, f"libvirt {what} did not end within {timeout_s:g} s", "")
        self._told(what, started, None)
        return answer[0]

    def close(self) -> None:
        """Let the connection go; the next call opens it again."""
        forward, self._forward = self._forward, None
        connection, self._connection = self._connection, None
        if forward is not None:
            forward.close()  # first: a call that is still at work holds the connection until then
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _within(self, action: Callable[[], T], until: float) -> tuple[T] | None:
        def work() -> tuple[T]:
            self._open()
            return (action(),)

        return patiently(work, until=until, name=f"libvirt-{self._host}", alive=self._alive, guard=self._guard)

    def _open(self) -> None:
        if self._connection is not None and not self._whole():
            self.close()  # the host was rebooted since, or the daemon started anew
        if self._connection is None:
            self._forward = Forward(self._path, lambda: self._dial(PORT), name=self._host)
            self._connection = self._connect(f"xen+unix:///system?socket={quote(self._path)}")

    def _whole(self) -> bool:
        """Whether the connection still stands; libvirt itself knows only when it tried."""
        if self._connection is None or self._forward is None or self._forward.broken:
            return False
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False

    def _lost(self, what: str, message: str) -> NoReturn:
        """Tell why the connection broke, or could not be made."""
        self.close()
        seen = self._shell.script(_LOOK, timeout_s=30.0, check=False).stdout  # HostDiedError when the host has died
        state, _, log = seen.partition("\n")
        evidence = Evidence(host=self._host, command=f"libvirt {what}", output=f"{message}\n{log}")
        if state == "none":
            raise ConfigError(
                f"{self._host}: its dom0 image has no libvirt daemon",
                hint="name an image with libvirt (dom0-libvirt-…) in dom0_image, or set toolstack=xl",
                evidence=evidence,
            )
        if state == "dead":
            raise StepFailure(
                f"{self._host}: libvirt's daemon does not run any more (at {what}): {message}", evidence=evidence
            )
        raise InfraError(
            f"{self._host}: the connection to libvirt's daemon broke (at {what}): {message}", evidence=evidence
        )

    def _failure(self, what: str, reason: str, message: str) -> StepFailure:
        try:
            log = self._shell.script(_LOOK, timeout_s=30.0, check=False).stdout.partition("\n")[2]
        except LabError as error:
            log = f"[not to be had: {error.message}]"
        return StepFailure(
            f"{self._host}: {reason[:400]}",
            evidence=Evidence(host=self._host, command=f"libvirt {what}", output=f"{message}\n{log}"[-20_000:]),
        )

    def _told(self, what: str, started: float, error: str | None) -> None:
        self._trace(
            CommandResult(
                host=self._host,
                command=f"libvirt {what}",
                exit_status=0 if error is None else 1,
                stdout="",
                stderr=error or "",
                seconds=time.monotonic() - started,
            )
        )


def said_by(error: libvirt.libvirtError) -> str:
    """libvirt's message in one line; it may hold text of guests and of other hosts."""
    return " ".join(str(error.get_error_message() or error).split()) or "it says nothing"
