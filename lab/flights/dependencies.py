"""Which jobs a job waits for: the build jobs that its runvars `xenbuildjob` and `<role>_xenbuildjob` name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lab.errors import ConfigError
from lab.flights.model import NAME, Job, JobKey
from lab.flights.status import JobStatus

RUNVAR: Final = "xenbuildjob"
OUTPUTS: Final = ("build_key", "tools_key", "policies_key")
"""What a build job writes and a job that names it gets, under the same prefix as the name."""

_ELSEWHERE: Final = re.compile(r"([1-9][0-9]{0,8})\.(.+)")


@dataclass(frozen=True, kw_only=True)
class Ready:
    """All that the job needs has passed; `outputs` are the runvars it gets from there."""

    outputs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Waits:
    """A job it needs has not ended."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Hopeless:
    """A job it needs ended without a pass: this one will never run."""

    reason: str


def job_named(text: str, flight: int) -> JobKey:
    """(flight, job) of a runvar's value: `JOB` of the same flight, or `FLIGHT.JOB`.

    >>> job_named("build-amd64-xen-4.17", 7), job_named("3.build-amd64-xen-4.17", 7)
    ((7, 'build-amd64-xen-4.17'), (3, 'build-amd64-xen-4.17'))
    """
    found = _ELSEWHERE.fullmatch(text)
    where, name = (int(found[1]), found[2]) if found else (flight, text)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{text!r} is not the name of a job", hint="JOB of the same flight, or FLIGHT.JOB")
    return where, name


def needed(runvars: Mapping[str, str], flight: int) -> Mapping[str, JobKey]:
    """Runvar prefix (empty, or `<role>_`) -> the build job it names."""
    return {
        name.removesuffix(RUNVAR): job_named(value, flight)
        for name, value in sorted(runvars.items())
        if value and (name == RUNVAR or name.endswith(f"_{RUNVAR}"))
    }


def standing(job: Job, others: Mapping[JobKey, Job]) -> Ready | Waits | Hopeless:
    """Whether a queued job may start, given the jobs it needs (one that is not in `others` does not exist)."""
    outputs: dict[str, str] = {}
    waiting: list[str] = []
    for prefix, (flight, name) in needed(job.values, job.flight).items():
        shown = name if flight == job.flight else f"{flight}.{name}"
        other = others.get((flight, name))
        if other is None:
            return Hopeless(reason=f"needs {shown}, which does not exist")
        if not other.status.final:
            waiting.append(shown)
        elif other.status is not JobStatus.PASS:
            why = f": {other.reason}" if other.reason else ""
            return Hopeless(reason=f"{shown} ended as {other.status.value}{why}"[:500])
        else:
            outputs |= {f"{prefix}{output}": other.values[output] for output in OUTPUTS if output in other.values}
    if waiting:
        return Waits(reason=f"waiting for {_listed(waiting)}")
    return Ready(outputs=MappingProxyType(outputs))


def _listed(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))
