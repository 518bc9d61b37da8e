"""The world of one running step: implements `lab.flights.steps.StepContext` on the lab's ports."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.context import Lab
from lab.errors import ConfigError, LabBug
from lab.flights.plain_text import without_encoded
from lab.flights.recipe import Line
from lab.flights.runvars import Runvars
from lab.flights.steps import Builds, GuestFiles
from lab.flights.xsm import XsmPolicy
from lab.hosts.protocols import BootTarget, CommandResult, Guard, HostAccess

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_LOGGED_OUTPUT = 20_000
"""Characters of one command's output that the step's log keeps; the rest is in the files a step saves."""


class StepLog:
    """A step's log file: each line with its time. Written through, so that whoever follows it sees it at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a", encoding="utf-8", errors="replace", buffering=1)

    def write(self, text: str) -> None:
        """Add text; every line of it gets the time."""
        stamp = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        for line in text.splitlines() or [""]:
            self._file.write(f"[{stamp}] {line}\n")

    def command(self, result: CommandResult) -> None:
        """Add a command with its outcome."""
        self.write(f"{result.host}$ {result.command}")
        if result.output.strip():
            output = without_encoded(result.output)
            self.write("\n".join(f"  {line}" for line in output[:_LOGGED_OUTPUT].splitlines()))
            if len(output) > _LOGGED_OUTPUT:
                self.write(f"  … {len(output) - _LOGGED_OUTPUT} characters more")
        self.write(f"  -> exit {result.exit_status} after {result.seconds:.2f} s")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class JobStep:
    """What a step sees (see `StepContext`)."""

    lab: Lab
    job: str
    line: Line
    role: str
    hosts: Mapping[str, HostAccess]
    runvars: Runvars
    guard: Guard
    step_log: StepLog
    failed: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles of the job."""
        return tuple(self.hosts)

    @property
    def args(self) -> Mapping[str, str]:
        """The recipe line's own arguments."""
        return self.line.args

    def host(self, role: str | None = None) -> HostAccess:
        """The host in `role`."""
        return self.hosts[role or self.role]

    def boot_target(self) -> BootTarget:
        """What this step's host is to boot."""
        return self.lab.images.boot_target(self.role, self.runvars)

    def guest_files(self, image: str) -> GuestFiles:
        """Where dom0 finds a guest image."""
        return self.lab.images.guest_files(image)

    @property
    def builds(self) -> Builds:
        """The lab's builds from source."""
        return self.lab.builds

    def xsm_policy(self, name: str) -> XsmPolicy:
        """A policy of xsm_policies/, compiled for this step's host."""
        key = self.runvars.for_role(self.role, "policies_key")
        if not key:
            raise ConfigError(
                "the job's Xen comes without XSM policies", hint="name a build job with xen_config=xsm in xenbuildjob"
            )
        return self.lab.builds.policy(key, name)

    def log(self, text: str) -> None:
        """Add a line to the log."""
        self.step_log.write(text)

    def save(self, name: str, data: bytes) -> None:
        """Keep a file beside the log."""
        if not _FILE_NAME.fullmatch(name):
            raise LabBug(f"{name!r} is not the name of a file a step may keep")
        path = self.step_log.path
        path.with_name(f"{path.name.removesuffix('.log')}.{name}").write_bytes(data)

    def wait(self, seconds: float) -> None:
        """Sleep with the guard watching."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.guard()
            time.sleep(min(0.2, left))
        self.guard()
