"""What a judge knows of the past: which flights tested the baseline's versions, which the same ones, and what came out.

Whoever has the results (a database, a file of reports) makes such a value; the judges only read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

Signature = tuple[str, str]
"""(job, testid): the same test in any flight of a branch."""

PASS: Final = "pass"  # noqa: S105 - not a password
FAIL: Final = "fail"
BROKEN: Final = "broken"
BLOCKED: Final = "blocked"
STARVED: Final = "starved"
SKIPPED: Final = "skipped"
UNFINISHED: Final = frozenset({"running", "queued", "preparing"})


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """A step that ended otherwise than it should.

    `own`: a step that is *blocked* has found so by itself, and nothing else is judged in its place.
    """

    testid: str
    status: str
    stepno: int | None = None
    own: bool = False
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A job as it ended. `bad` are its steps that did not pass (of the attempt that counts), in their order."""

    name: str
    status: str
    bad: tuple[StepRun, ...] = ()
    build: bool = False


@dataclass(frozen=True, kw_only=True)
class FlightRun:
    """A flight as it ended: its jobs in the order in which they are to be told."""

    flight: int
    jobs: tuple[JobRun, ...] = ()

    def steps(self) -> Iterator[tuple[JobRun, StepRun]]:
        """Every step that did not pass, with its job."""
        return ((job, step) for job in self.jobs for step in job.bad)


@dataclass(frozen=True, kw_only=True)
class Past:
    """The past of one flight.

    `same` are the other flights of the very versions (retests among them), the preferred first; `baseline` those of the
    baseline's versions, the newest first. `seen` says what came of a test in a flight: a step's status, or *blocked*
    (*starved*) when its job was there and did not come to it; where nothing is known, nothing is said. `passed` says
    whether a test has ever passed in a flight that counts; without an entry that is not known, and it is taken to have.
    `common` is how many jobs of the flight the baseline's flights have, too (None: not counted).
    """

    same: tuple[FlightRun, ...] = ()
    baseline: tuple[int, ...] = ()
    seen: Mapping[Signature, Mapping[int, str]] = field(default_factory=lambda: MappingProxyType({}))
    passed: Mapping[Signature, bool] = field(default_factory=lambda: MappingProxyType({}))
    common: int | None = None

    def status(self, test: Signature, flight: int) -> str | None:
        """What came of a test in a flight; None: not known."""
        return self.seen.get(test, {}).get(flight)

    def with_baseline(self, test: Signature) -> list[tuple[int, str]]:
        """(flight, status) of a test with the baseline, the newest flight first."""
        seen = self.seen.get(test, {})
        return [(flight, seen[flight]) for flight in self.baseline if flight in seen]
