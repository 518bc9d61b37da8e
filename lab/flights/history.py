"""How a job, or one of its tests, went over hosts and time: rates with intervals, and durations. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Any, Final

PASSED: Final = "pass"
FAILED: Final = "fail"

_Z: Final = 1.959964
"""Standard deviations to either side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at a job, or the one step of it that is looked at.

    `status` is the attempt's or the step's; `testid` and `reason` tell what went wrong first. `seconds` is None
    while it runs. `newest`: no later attempt at the job was made.
    """

    flight: int
    branch: str
    job: str
    attempt: int
    newest: bool
    status: str
    hosts: tuple[str, ...]
    started: datetime
    seconds: float | None
    stepno: int | None = None
    testid: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something passed. `other`: runs that tell nothing of the product (broken, blocked, aborted, skipped).

    `low` and `high` hold the true share of passes with 95 % confidence (Wilson's score interval).
    """

    passed: int
    failed: int
    other: int
    low: float
    high: float

    @property
    def told(self) -> int:
        """How many runs passed or failed."""
        return self.passed + self.failed

    @property
    def share(self) -> float | None:
        """The share of those that passed; None when nothing was told."""
        return self.passed / self.told if self.told else None


def wilson(passed: int, total: int) -> tuple[float, float]:
    """Between which shares of passes the true one lies, with 95 % confidence (Wilson 1927).

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    if total == 0:
        return 0.0, 1.0
    share, spare = passed / total, _Z * _Z / total
    middle = share + spare / 2
    reach = _Z * sqrt(share * (1 - share) / total + spare / (4 * total))
    return max(0.0, (middle - reach) / (1 + spare)), min(1.0, (middle + reach) / (1 + spare))


def rate_of(statuses: Iterable[str]) -> Rate:
    """Sum runs up."""
    seen = list(statuses)
    passed, failed = seen.count(PASSED), seen.count(FAILED)
    low, high = wilson(passed, passed + failed)
    return Rate(passed=passed, failed=failed, other=len(seen) - passed - failed, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class ClassRate:
    """How it went on hosts that are alike; the quantiles of how long it took when it passed, in seconds."""

    host_class: str
    hosts: tuple[str, ...]
    rate: Rate
    p50_s: float | None
    p90_s: float | None


def by_class(runs: Iterable[Run], classes: Mapping[str, str]) -> list[ClassRate]:
    """Runs by the class of their first host (`classes`: of each host), the one with most of them first."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[classes.get(run.hosts[0], "unknown") if run.hosts else ""].append(run)
    rates = []
    for name, members in found.items():
        lengths = sorted(run.seconds for run in members if run.status == PASSED and run.seconds is not None)
        rates.append(
            ClassRate(
                host_class=name,
                hosts=tuple(sorted({host for run in members for host in run.hosts})),
                rate=rate_of(run.status for run in members),
                p50_s=_quantile(lengths, 0.5),
                p90_s=_quantile(lengths, 0.9),
            )
        )
    return sorted(rates, key=lambda one: (-one.rate.told, one.host_class))


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def run_view(run: Run) -> dict[str, Any]:
    """One run as plain data."""
    return {
        "flight": run.flight,
        "branch": run.branch,
        "job": run.job,
        "attempt": run.attempt,
        "newest": run.newest,
        "status": run.status,
        "hosts": list(run.hosts),
        "started": run.started.isoformat(timespec="milliseconds"),
        "seconds": run.seconds,
        "testid": run.testid,
        "reason": run.reason,
    }


def rate_view(rate: Rate) -> dict[str, Any]:
    """A rate as plain data; the interval is null where nothing was told."""
    interval = [round(rate.low, 4), round(rate.high, 4)] if rate.told else None
    return {
        "passed": rate.passed,
        "failed": rate.failed,
        "other": rate.other,
        "share": rate.share,
        "interval95": interval,
    }


def class_view(one: ClassRate) -> dict[str, Any]:
    """How it went on hosts that are alike, as plain data."""
    return {
        "host_class": one.host_class,
        "hosts": list(one.hosts),
        **rate_view(one.rate),
        "p50_s": one.p50_s,
        "p90_s": one.p90_s,
    }
