"""What runs: what it adds to the use of each tenant, and when each host is expected back. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.hosts.durations import Estimate


@dataclass(frozen=True, kw_only=True)
class _Run:
    tenant: str
    hosts: Sequence[str]
    since: float
    estimate: Estimate

    @property
    def weight(self) -> int:
        """Host-seconds of each second."""
        return max(1, len(self.hosts))


@dataclass
class _Use:
    """What a tenant's runs add up to: those in time count as long as is expected, the others as long as they take."""

    runs: int = 0
    expected: float = 0.0
    late: int = 0
    late_since: float = 0.0


class Runs:
    """What runs now. Beginning and ending one costs no more when there are many."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._holder: dict[str, str] = {}
        self._use: dict[str, _Use] = {}
        self._due: list[tuple[float, str]] = []
        self._late: set[str] = set()

    def begin(self, run: str, *, tenant: str, hosts: Iterable[str], since: float, estimate: Estimate) -> None:
        """One begins at `since` (seconds since the epoch), or is known better now."""
        self.end(run)
        one = self._runs[run] = _Run(tenant=tenant, hosts=tuple(hosts), since=since, estimate=estimate)
        self._holder |= dict.fromkeys(one.hosts, run)
        use = self._use.setdefault(tenant, _Use())
        use.runs += 1
        use.expected += estimate.p50_s * one.weight
        heapq.heappush(self._due, (since + estimate.p50_s, run))

    def end(self, run: str) -> None:
        """One has ended; one that is not known has, too."""
        one = self._runs.pop(run, None)
        if one is None:
            return
        for host in one.hosts:
            if self._holder.get(host) == run:
                del self._holder[host]
        use = self._use[one.tenant]
        use.runs -= 1
        if use.runs == 0:
            del self._use[one.tenant]  # and what rounding has left of it
        elif run in self._late:
            use.late -= one.weight
            use.late_since -= one.weight * one.since
        else:
            use.expected -= one.estimate.p50_s * one.weight
        self._late.discard(run)

    def used(self, now: float) -> dict[str, float]:
        """The host-seconds of what runs, by tenant: as long as is expected, or as it has taken already."""
        while self._due and self._due[0][0] <= now:
            due, run = heapq.heappop(self._due)
            one = self._runs.get(run)
            if one is None or run in self._late or due != one.since + one.estimate.p50_s:
                continue
            self._late.add(run)
            use = self._use[one.tenant]
            use.expected -= one.estimate.p50_s * one.weight
            use.late += one.weight
            use.late_since += one.weight * one.since
        return {tenant: use.expected + use.late * now - use.late_since for tenant, use in self._use.items()}

    def back(self, host: str, now: float) -> float:
        """In how many seconds a host is expected back; infinity when nothing that is known here has it.

        What has taken longer than expected is expected to take as long again as it is late, at least a tenth.
        """
        run = self._runs.get(self._holder.get(host, ""))
        if run is None:
            return math.inf
        left = run.since + run.estimate.p50_s - now
        return left if left > 0 else max(-left, run.estimate.p50_s / 10)
