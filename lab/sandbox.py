"""Runs other people's build scripts where they can do no harm: bubblewrap, with a tree of ours as the whole system.

Inside there is the tree (read-only), the folders that were bound, a private /tmp, and nothing else of the machine: no
network, no other process, no privilege. Works as root and, where user namespaces are allowed, as anybody.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lab.errors import Evidence, InfraError
from lab.image_debian import need_tools

MIB: Final = 1 << 20
_TICK_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a command in the sandbox may use. Memory, processor time and file size count for each process."""

    wall_s: float = 3600.0
    cpu_s: int = 3600
    memory_mib: int = 4096
    file_mib: int = 2048
    tmp_mib: int = 2048
    niceness: int = 10
    """hosts that are under test meanwhile go first"""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A place to run commands: `root` becomes /, `writable` maps paths inside to folders that may be changed."""

    root: Path
    writable: Mapping[str, Path]
    folder: str
    """working directory inside"""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    limits: Limits = Limits()

    def command(self, argv: Sequence[str]) -> list[str]:
        """The whole command line."""
        limits = self.limits
        binds = [part for inside, path in self.writable.items() for part in ("--bind", str(path), inside)]
        variables = [part for name, value in self.environment.items() for part in ("--setenv", name, value)]
        return [
            "nice", "-n", str(limits.niceness), "prlimit", "--core=0", f"--cpu={limits.cpu_s}",
            f"--as={limits.memory_mib * MIB}", f"--fsize={limits.file_mib * MIB}", "--",
            "bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "lab",
            "--new-session", "--die-with-parent", "--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc",
            "--size", str(limits.tmp_mib * MIB), "--tmpfs", "/tmp", "--tmpfs", "/run", *binds,  # noqa: S108
            "--chdir", self.folder, "--clearenv", *variables, "--", *argv,
        ]  # fmt: skip

    def run(self, argv: Sequence[str], log: Path, *, guard: Callable[[], None] = lambda: None) -> int | None:
        """Run a command to its end, its output appended to `log`; returns its exit status, None when time ran out.

        `guard` is called all the while; when it raises, everything in the sandbox is killed. Raises `InfraError` when
        the sandbox itself cannot be made.
        """
        need_tools("bwrap", "prlimit")
        until = time.monotonic() + self.limits.wall_s
        with log.open("ab") as output:
            start = output.tell()
            process = subprocess.Popen(
                self.command(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                process_group=0, env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            )  # fmt: skip
            try:
                while (status := process.poll()) is None and time.monotonic() < until:
                    guard()
                    time.sleep(_TICK_S)
            finally:
                if process.poll() is None:
                    # the first process of the sandbox's pid namespace goes with bwrap, and takes all others with it
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            self._explain(log, start, status)
        return status

    def _explain(self, log: Path, start: int, status: int) -> None:
        with log.open("rb") as said:
            said.seek(start)
            first = said.read(4096).decode(errors="replace")
        if first.startswith(("bwrap: ", "prlimit: ")):
            raise InfraError(
                f"the sandbox cannot be made: {first.splitlines()[0]}",
                hint="are user namespaces allowed here? (sysctl kernel.unprivileged_userns_clone, AppArmor)",
                evidence=Evidence(command="bwrap", exit_status=status, output=first),
            )
