"""Steps: how a test case declares itself and what it may see while it runs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Protocol

from lab.errors import LabBug, NotFoundError
from lab.flights.builds import BuildRequest
from lab.flights.runvars import Runvars
from lab.flights.xsm import XsmPolicy
from lab.hosts.protocols import BootTarget, Guard, HostAccess


class SkipStep(Exception):  # noqa: N818 - not an error
    """Raised by a step that has nothing to do here; the reason is shown."""


class StepContext(Protocol):
    """A step's whole world: its job's runvars, the hosts in their roles, a log, and a place for evidence."""

    @property
    def job(self) -> str:
        """`flight.job`."""

    @property
    def role(self) -> str:
        """The role this step works on."""

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles of the job."""

    @property
    def args(self) -> Mapping[str, str]:
        """The recipe line's own arguments."""

    @property
    def runvars(self) -> Runvars:
        """The job's runvars; `set` records an output."""

    @property
    def failed(self) -> bool:
        """Whether an earlier step of this attempt did not pass; only lines that always run can see it true."""

    @property
    def guard(self) -> Guard:
        """Raises when waiting has become pointless; give it to every wait of your own."""

    def host(self, role: str | None = None) -> HostAccess:
        """The host in `role` (default: this step's)."""

    def boot_target(self) -> BootTarget:
        """What this step's host is to boot, from the job's runvars; `ConfigError` if an image is missing."""

    def guest_files(self, image: str) -> GuestFiles:
        """Where dom0 finds a guest image."""

    @property
    def builds(self) -> Builds:
        """The lab's builds from source."""

    def xsm_policy(self, name: str) -> XsmPolicy:
        """The policy `name` of xsm_policies/, compiled for the Xen that this step's host runs."""

    def log(self, text: str) -> None:
        """Add a line to the step's log (untrusted text is welcome)."""

    def save(self, name: str, data: bytes) -> None:
        """Keep a file beside the step's log, for people (`name`: letters, digits, dots and dashes)."""

    def wait(self, seconds: float) -> None:
        """Sleep, with the guard watching."""


@dataclass(frozen=True, kw_only=True)
class GuestFiles:
    """Paths in dom0 of a guest image's kernel and initramfs; of its bzImage and boot disk, if a BIOS can start it."""

    kernel: str
    ramdisk: str
    bzimage: str = ""
    disk: str = ""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished part of a build: the hypervisor with what belongs to it, or the toolstack as an overlay of dom0.

    `folder` holds xen, xen-syms, config, build.log, and, where there are any, xenpolicy and livepatch/*.livepatch.
    `build_id` is the hypervisor's, `checksums` maps programs of the toolstack to their SHA-256.
    """

    key: str
    part: str
    commit: str
    version: str
    folder: Path
    hypervisor: Path | None = None
    overlay: Path | None = None
    build_id: str = ""
    checksums: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    seconds: float = 0.0
    reused: bool = False


class Builds(Protocol):
    """Compiles Xen, and keeps what was compiled."""

    def check(self, request: BuildRequest) -> None:
        """Raise `ConfigError` when the tree has no such revision, or it is no Xen."""

    def version_of(self, request: BuildRequest) -> str:
        """The series of Xen (`4.17`) that a request would compile."""

    def make(
        self,
        request: BuildRequest,
        part: str,
        *,
        guard: Guard,
        log: Callable[[str], None],
        save: Callable[[str, bytes], None],
    ) -> Built:
        """A part of a build, compiled now unless it was before; the compiler's log is saved, whatever comes of it.

        `StepFailure` with the compiler's first error when it does not compile.
        """

    def find(self, key: str) -> Built:
        """The finished build of that key; `NotFoundError` when there is none."""

    def policy(self, key: str, name: str) -> XsmPolicy:
        """An XSM policy out of the build of that key; `ConfigError` when it has none of this name."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A test case: its name, its function, and the limit of one run in seconds."""

    name: str
    function: Callable[[StepContext], None]
    timeout_s: float


_STEPS: dict[str, Step] = {}


def step(name: str, *, timeout_s: float) -> Callable[[Callable[[StepContext], None]], Callable[[StepContext], None]]:
    """Declare a function as the step `name`; the same name twice is a mistake.

    The function returns when the step passed. It raises `StepFailure` when the product did wrong, `SkipStep` when
    there is nothing to do, and `Blocked` when the job cannot be done here at all: it ends then, with the logs kept and
    the reason shown. Any other exception means that the lab is broken.
    """

    def declare(function: Callable[[StepContext], None]) -> Callable[[StepContext], None]:
        if name in _STEPS:
            raise LabBug(f"step {name} is declared twice")
        _STEPS[name] = Step(name=name, function=function, timeout_s=timeout_s)
        return function

    return declare


def load_all(package: ModuleType) -> None:
    """Import every module of `package`, so that their steps or recipes are declared."""
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def all_steps() -> Mapping[str, Step]:
    """Every declared step by name."""
    return MappingProxyType(_STEPS)


def find_step(name: str) -> Step:
    """The step of this name, or `NotFoundError`."""
    try:
        return _STEPS[name]
    except KeyError:
        raise NotFoundError(f"unknown step {name!r}", hint=f"there are: {', '.join(sorted(_STEPS))}") from None
