"""A flight's jobs as text of one fact a line, so that a change of the matrix can be read as a diff.

OSSTest reviews its matrix the same way (standalone-generate-dump-flight-runvars).
"""

from __future__ import annotations

from collections.abc import Iterable

from lab.flights.model import JobSpec


def dump(specs: Iterable[JobSpec]) -> str:
    """A line `JOB RUNVAR VALUE` for each runvar, with the recipe as the first of them; jobs in their own order."""
    lines = []
    for spec in specs:
        lines.append(f"{spec.name} recipe {spec.recipe}")
        lines += [f"{spec.name} {name} {value}" for name, value in sorted(spec.runvars.items())]
    return "".join(f"{line}\n" for line in lines)
