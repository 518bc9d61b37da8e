"""What no schedule can beat: the least time in which jobs can be done, whoever plans. Pure."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.hosts.model import Host
from lab.hosts.simulation import SimulatedJob


@dataclass(frozen=True, kw_only=True)
class LowerBound:
    """The least time in which jobs can be done, in seconds, and what it comes from."""

    seconds: float
    why: str


def lower_bound(hosts: Iterable[Host], jobs: Iterable[SimulatedJob]) -> LowerBound:
    """No schedule ends earlier: the largest of two kinds of bounds, counted from when the first job comes.

    *A job*: from when it comes, what it takes, and all that must follow it. *Some hosts*: of all that can run on no
    others, what comes from some moment on, spread evenly over them (for nested requirements the hosts of each, and
    those of any of them together: Hall's condition, for up to a dozen sets of hosts exactly).
    """
    usable = [host for host in hosts if host.usable()]
    todo = list(jobs)
    if not todo:
        return LowerBound(seconds=0.0, why="there are no jobs")
    first = min(job.request.submitted for job in todo)
    chain, which = _longest_chain(todo)
    best = LowerBound(seconds=chain - first, why=f"job {which} and what must follow it")
    work: dict[frozenset[str], list[tuple[float, float]]] = defaultdict(list)
    able: dict[str, frozenset[str]] = {}
    for job in todo:
        for role in job.request.roles:
            text = role.requirement.text
            if text not in able:
                able[text] = frozenset(host.name for host in usable if role.requirement.matches(host))
            if able[text]:
                work[able[text]].append((job.request.submitted, job.seconds))
    for names in _unions(work):
        loads = sorted((one for able_, some in work.items() if able_ <= names for one in some), reverse=True)
        total, bound = 0.0, 0.0
        for submitted, seconds in loads:
            total += seconds
            bound = max(bound, submitted + total / len(names))
        if bound - first > best.seconds:
            best = LowerBound(seconds=bound - first, why=f"{len(loads)} roles that {_count(names, usable)} can take")
    return best


def _count(names: frozenset[str], usable: Sequence[Host]) -> str:
    return "all hosts" if len(names) == len(usable) else f"only {len(names)} of {len(usable)} hosts"


def _unions(sets: Iterable[frozenset[str]]) -> Iterator[frozenset[str]]:
    """All unions of up to twelve sets; of more, each set, those of two, and that of all."""
    some = sorted(sets, key=lambda names: (len(names), sorted(names)))
    sizes: Iterable[int] = range(1, len(some) + 1) if len(some) <= 12 else (1, 2, len(some))
    yield from {frozenset().union(*chosen) for size in sizes for chosen in itertools.combinations(some, size)}


def _longest_chain(jobs: Sequence[SimulatedJob]) -> tuple[float, str]:
    """When the last job ends at the earliest, had each its hosts at once; and which that is."""
    by_id = {job.request.id: job for job in jobs}
    ends: dict[str, float] = {}
    for job in jobs:
        todo = [job.request.id]
        while todo:
            one = by_id[todo[-1]]
            missing = [other for other in one.after if other in by_id and other not in ends]
            if missing and len(todo) <= len(jobs):
                todo += missing
                continue
            begins = max([one.request.submitted, *(ends.get(other, 0.0) for other in one.after)])
            ends[todo.pop()] = begins + one.seconds
    return max((end, job_id) for job_id, end in ends.items())
