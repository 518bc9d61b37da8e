"""The `Lab`: the bundle of ports that services receive, typed by what they need and blind to how it was built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from lab.flights.runvars import Runvars
from lab.flights.starvation import StarvationRule
from lab.flights.steps import Builds, GuestFiles
from lab.hosts.health import Rules
from lab.hosts.leases import DEFAULT_RULES, LeaseRules
from lab.hosts.model import Host
from lab.hosts.protocols import BootTarget, Machines
from lab.hosts.slots import Limit
from lab.labfile import BisectionSettings, BranchSettings, MailSettings, SchedulerSettings
from lab.settings import Settings


class Bell(Protocol):
    """Wakes the leader when something changed. Losing a ring costs time, never correctness."""

    def ring(self) -> None:
        """Something changed; call after the commit."""

    def wait(self, timeout_s: float) -> bool:
        """Block until somebody rings (True) or the time is over (False)."""


class Dispatch(Protocol):
    """Sends work to the workers; the row in the database decides who does it, the message only wakes one."""

    def run_job(self, attempt: int, token: str) -> None:
        """An attempt is ready to be claimed."""

    def clean_host(self, host: str) -> None:
        """A host is to be powered off and set free."""

    def ask_site(self, site: str) -> None:
        """A worker of the site is to answer: write that it hears."""


class Images(Protocol):
    """Built images as a job needs them."""

    def check(self, name: str) -> None:
        """Raise `NotFoundError` when there is no manifest of this name."""

    def boot_target(self, role: str, runvars: Runvars) -> BootTarget:
        """What a host in `role` boots; `ConfigError` when an image is not built. Reads declared inputs only."""

    def guest_files(self, image: str) -> GuestFiles:
        """Where dom0 finds a guest image."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One installation at work."""

    settings: Settings
    sessions: sessionmaker[Session]
    """Read and write; one unit of work each."""
    reads: sessionmaker[Session]
    """Only read."""
    clock: Callable[[], datetime]
    hosts: tuple[Host, ...]
    """The hosts of the lab's file."""
    machines: Machines
    images: Images
    builds: Builds
    bell: Bell
    dispatch: Dispatch
    build_site: str = "default"
    """The site whose workers run the jobs without hosts."""
    limit: Limit | None = None
    """How many of the hosts may run at once."""
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    """How tenants share the hosts."""
    lease_rules: LeaseRules = DEFAULT_RULES
    """How long people may have hosts."""
    starvation: StarvationRule = field(default_factory=StarvationRule)
    """When jobs are given up because they would wait for too long."""
    bisection: BisectionSettings = field(default_factory=BisectionSettings)
    """How bisections are made unless their caller says."""
    mail: MailSettings = field(default_factory=MailSettings)
    """Where reports go."""
    branches: Mapping[str, BranchSettings] = field(default_factory=dict)
    """The branches that have a push gate."""
    coverage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By branch (`*`: any other): which share of the jobs of an architecture has to come to a verdict."""
    health_rules: Rules = field(default_factory=Rules)
    """When hosts are distrusted, and tried again."""

    @property
    def logs(self) -> Path:
        """The folder of logs and evidence."""
        return self.settings.logs
