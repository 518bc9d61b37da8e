"""How much of what a flight was to test it did test, and whether that is enough. Pure.

OSSTest pushed a revision of which both tests were starved: what did not run does not block. So a branch may demand how
many of its jobs on each architecture have to come to a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lab.flights.builds import RECIPE
from lab.flights.model import Flight
from lab.flights.status import JobStatus

VERDICTS: Final = frozenset({JobStatus.PASS, JobStatus.FAIL})
"""What says something about the product."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of the test jobs of an architecture: how many came to a verdict or still may (`left`), of how many, and which
    share of them is demanded.
    """

    arch: str
    ran: int
    jobs: int
    left: int = 0
    demanded: float = 0.0

    @property
    def enough(self) -> bool:
        """Whether the demand is met; an architecture of which nothing was to run meets none."""
        return self._would_do(self.ran)

    @property
    def lost(self) -> bool:
        """Whether the demand cannot be met any more, whatever comes of the jobs that are left."""
        return not self._would_do(self.ran + self.left)

    def _would_do(self, ran: int) -> bool:
        return ran >= self.demanded * self.jobs - 1e-9 and (ran > 0 or self.demanded == 0)

    def __str__(self) -> str:
        told = f"{self.arch}: {self.ran} of {self.jobs} jobs came to a verdict"
        told += f" and {self.left} may still" if self.left and not self.enough else ""
        return told if self.enough else f"{told}, {self.demanded:.0%} are demanded"


def coverage(jobs: Iterable[tuple[str, JobStatus]], demands: Mapping[str, float]) -> tuple[Coverage, ...]:
    """The coverage of each architecture, by name; `jobs` are the (architecture, status) of the test jobs.

    >>> [str(one) for one in coverage([("arm64", JobStatus.STARVED)], {"arm64": 0.5})]
    ['arm64: 0 of 1 jobs came to a verdict, 50% are demanded']
    """
    everything, ran, left = Counter[str](), Counter[str](), Counter[str]()
    for arch, status in jobs:
        everything[arch] += 1
        ran[arch] += status in VERDICTS
        left[arch] += not status.final
    return tuple(
        Coverage(
            arch=arch, ran=ran[arch], jobs=everything[arch], left=left[arch], demanded=demands.get(arch, 0.0)
        )
        for arch in sorted(everything.keys() | demands.keys())
    )


def coverage_of(flight: Flight, demands: Mapping[str, Mapping[str, float]]) -> tuple[Coverage, ...]:
    """The coverage of a flight's test jobs, by what its branch demands, or else every branch (`*`)."""
    jobs = [(job.values.get("arch", ""), job.status) for job in flight.jobs if job.recipe != RECIPE]
    return coverage(jobs, demands.get(flight.branch, demands.get("*", {})))


def unmet(flight: Flight, demands: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Which demands on its coverage a flight does not meet, as sentences: with any of them it must pass no gate."""
    return tuple(str(one) for one in coverage_of(flight, demands) if not one.enough)
