"""How long something will take, from how long it took: quantiles of the latest runs, the newest weighing most. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lab.hosts.model import Host

KEPT: Final = 40
"""Runs remembered of one thing on one class of hosts."""

HALF_WEIGHT: Final = 10
"""The run so many runs ago weighs half as much as the newest."""

ANY_CLASS: Final = "*"
"""All hosts together."""

NARROWEST: Final = 0.5
"""With one run known, nine of ten are expected within 1.5 times its length; with n runs, within 1 + 0.5/√n times."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long something will take, in seconds: even odds at `p50_s`, nine in ten by `p90_s`."""

    p50_s: float = 900.0
    p90_s: float = 3600.0


UNKNOWN: Final = Estimate()
"""What is assumed where nobody says anything else."""


def host_class(host: Host) -> str:
    """The hosts on which things take equally long: those with the same architecture and flags. At most 128 letters."""
    name = " ".join([host.arch, *sorted(host.flags)])
    return name if len(name) <= 128 else f"{name[:90]} {hashlib.sha256(name.encode()).hexdigest()[:16]}"


def remembered(samples: Sequence[float], newest: float) -> list[float]:
    """The samples with one more, the newest first."""
    return [round(max(newest, 0.0), 3), *samples[: KEPT - 1]]


def spread_of(samples: Sequence[float], default: Estimate) -> Estimate:
    """The weighted quantiles of samples (the newest first); `default` when there are none."""
    if not samples:
        return default
    p50 = _quantile(samples, 0.5)
    return Estimate(p50_s=p50, p90_s=max(_quantile(samples, 0.9), p50 * (1 + NARROWEST / len(samples) ** 0.5)))


def still_to_go(samples: Sequence[float], elapsed: float, default: Estimate) -> Estimate:
    """What is left after `elapsed` seconds: the quantiles of those runs that took longer.

    When it has taken longer than all, as long again is expected as it is beyond the longest, at least a tenth of
    that one: OSSTest's rule for what is overdue (duration² / planned), without its jump.
    """
    whole = spread_of(samples, default)
    longer = [(sample - elapsed, 0.5 ** (age / HALF_WEIGHT)) for age, sample in enumerate(samples)]
    longer = [(left, weight) for left, weight in longer if left > 0]
    if longer:
        p50 = _weighted(longer, 0.5)
        return Estimate(p50_s=p50, p90_s=max(_weighted(longer, 0.9), whole.p90_s - elapsed, p50))
    if elapsed < whole.p50_s:
        return Estimate(p50_s=whole.p50_s - elapsed, p90_s=whole.p90_s - elapsed)
    over = max(elapsed - whole.p50_s, whole.p50_s / 10)
    return Estimate(p50_s=over, p90_s=max(2 * over, whole.p90_s - elapsed))


@dataclass(frozen=True, kw_only=True)
class History:
    """What is remembered: (subject, host class) -> samples, the newest first."""

    samples: Mapping[tuple[str, str], Sequence[float]]
    default: Estimate
    _expected: dict[tuple[str, str, str], Estimate] = field(default_factory=dict, init=False, repr=False, compare=False)
    """what was asked before: a queue has many jobs of few names"""

    def known(self, job: str, recipe: str, place: str) -> Sequence[float]:
        """The samples that tell most about a job on a class of hosts: its own there, its own anywhere, its recipe's."""
        for subject in subjects(job, recipe):
            for where in (place, ANY_CLASS):
                if found := self.samples.get((subject, where)):
                    return found
        return ()

    def expected(self, job: str, recipe: str, place: str = ANY_CLASS) -> Estimate:
        """How long the job will take."""
        key = (job, recipe, place)
        if key not in self._expected:
            self._expected[key] = spread_of(self.known(job, recipe, place), self.default)
        return self._expected[key]

    def left(self, job: str, recipe: str, place: str, elapsed: float) -> Estimate:
        """How long it will still take, when it has been running for `elapsed` seconds."""
        return still_to_go(self.known(job, recipe, place), max(elapsed, 0.0), self.default)


def subjects(job: str, recipe: str) -> tuple[str, str]:
    """What durations are remembered of: the job of this name, and jobs of this recipe."""
    return f"job:{job}", f"recipe:{recipe}"


def _quantile(samples: Sequence[float], q: float) -> float:
    return _weighted([(sample, 0.5 ** (age / HALF_WEIGHT)) for age, sample in enumerate(samples)], q)


def _weighted(weighed: Sequence[tuple[float, float]], q: float) -> float:
    """The least value with at least a part `q` of all weight at or below it."""
    total = sum(weight for _value, weight in weighed)
    below = 0.0
    for value, weight in sorted(weighed):
        below += weight
        if below >= q * total - 1e-12:
            return value
    return max(value for value, _weight in weighed)
