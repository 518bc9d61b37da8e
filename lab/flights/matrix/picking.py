"""Picking some of a flight's jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from lab.errors import NotFoundError
from lab.flights.model import JobSpec


def select(specs: Sequence[JobSpec], patterns: Iterable[str]) -> tuple[JobSpec, ...]:
    """The jobs that any of `patterns` names (exactly, or with `*`, `?`, `[…]`), in their own order; all without one.

    The build jobs that a picked job boots from come along. A pattern that names no job is a mistake: `NotFoundError`.
    """
    wanted = tuple(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(spec.name, pattern) for spec in specs):
            raise NotFoundError(f"no job is called {pattern!r}", hint=f"there are: {', '.join(s.name for s in specs)}")
    if not wanted:
        return tuple(specs)
    picked = {spec.name for spec in specs if any(fnmatchcase(spec.name, pattern) for pattern in wanted)}
    picked |= {
        value
        for spec in specs
        if spec.name in picked
        for runvar, value in spec.runvars.items()
        if runvar.endswith("xenbuildjob")
    }
    return tuple(spec for spec in specs if spec.name in picked)
