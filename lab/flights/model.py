"""Flights, jobs, attempts and steps as values: what the database hands out and what every face shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from lab.errors import ConfigError
from lab.flights.status import Blessing, JobStatus, StepStatus

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a flight's branch and a job may be called; such names are safe in paths, URLs and mail headers."""

JobKey = tuple[int, str]
"""(flight, name)"""

TENANT: Final = re.compile(r"^[^\x00-\x1f\x7f]{1,128}$")
"""Who a flight's host time is charged to: a person or a team, by any printable name."""


def check_name(kind: str, name: str) -> str:
    """Return `name`, or raise `ConfigError` when it is not one."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} {name!r} is not a valid name",
            hint="letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit",
        )
    return name


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job as it is submitted: which recipe, with which runvars."""

    name: str
    recipe: str
    runvars: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One run of one test case in an attempt. `log` is relative to the lab's log folder; times are UTC.

    `reason` says in a line why it did not pass; `evidence` is what was seen then, by label (untrusted text).
    `console` maps a host to the [start, end) offsets of its serial console during the step.
    """

    stepno: int
    testid: str
    step: str
    status: StepStatus
    started: datetime
    finished: datetime | None = None
    host: str | None = None
    reason: str = ""
    evidence: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    log: str = ""
    console: Mapping[str, tuple[int, int | None]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a job on certain hosts. A broken attempt stays, and the job may be tried again elsewhere."""

    id: int
    number: int
    status: JobStatus
    hosts: Mapping[str, str]
    """role -> host name"""
    started: datetime
    finished: datetime | None = None
    worker: str = ""
    reason: str = ""
    steps: tuple[StepResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Runvar:
    """A named string of a job; `synth` when a step wrote it, else the flight's definition did."""

    name: str
    value: str
    synth: bool = False


@dataclass(frozen=True, kw_only=True)
class Window:
    """A moment in the future that is not known exactly: even odds at `p50`, nine in ten by `p90`."""

    p50: datetime
    p90: datetime


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a queued job waits, and when and where it is expected to run.

    `kind` is a word for programs, `text` a line for people, `data` what the text was made of. `place` is its turn
    in the whole queue, from 1. Where nobody can tell, `start`, `end` and `hosts` (by role) are empty.
    """

    kind: str
    text: str
    data: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    place: int | None = None
    start: Window | None = None
    end: Window | None = None
    hosts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    updated: datetime | None = None
    """when the leader said so"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job and all that came of it."""

    flight: int
    name: str
    recipe: str
    status: JobStatus
    reason: str = ""
    """why it waits, or why it ended as it did; one line"""
    runvars: tuple[Runvar, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    queued: datetime | None = None
    wait: Wait | None = None
    """of a queued job, once the leader has looked at it"""

    @property
    def id(self) -> str:
        """`flight.job`, the identity used everywhere."""
        return f"{self.flight}.{self.name}"

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def values(self) -> Mapping[str, str]:
        """Runvars by name."""
        return {runvar.name: runvar.value for runvar in self.runvars}


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A numbered set of jobs for one branch."""

    id: int
    branch: str
    intended: Blessing
    blessing: Blessing
    status: JobStatus
    started: datetime
    finished: datetime | None = None
    submitter: str = ""
    tenant: str = ""
    """whose share of the hosts the flight uses"""
    note: str = ""
    jobs: tuple[Job, ...] = ()

    @property
    def counts(self) -> Mapping[JobStatus, int]:
        """How many jobs stand how; what none is in is left out."""
        return Counter(job.status for job in self.jobs)


@dataclass(frozen=True, kw_only=True)
class FlightSummary:
    """A flight of which the jobs are only counted."""

    id: int
    branch: str
    intended: Blessing
    blessing: Blessing
    status: JobStatus
    started: datetime
    finished: datetime | None
    submitter: str
    tenant: str
    note: str
    counts: Mapping[JobStatus, int]
