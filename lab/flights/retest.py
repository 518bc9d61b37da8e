"""Which failures are tried again at once, and where: a pass of the same versions tells a flake from a regression. Pure.

OSSTest retries the regressing jobs that are no builds, once, if all that blocks can be retried and it is little (one
job, or a tenth of all). Here it may be several times: first on the hosts where it failed (does it come and go there?),
then on others (is it the host?), in turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from types import MappingProxyType
from typing import Final

from lab.flights.dependencies import RUNVAR
from lab.flights.model import Job, JobSpec
from lab.flights.verdict import Kind, Verdict

MOST_SHARE: Final = 0.1
"""Of a flight's jobs, so many at most are tried again; but always one."""


@dataclass(frozen=True, kw_only=True)
class Retest:
    """One further flight: these jobs, on the same hosts as before or, with `elsewhere`, on none of them."""

    jobs: tuple[str, ...]
    elsewhere: bool = False

    @property
    def note(self) -> str:
        """A line about it."""
        return f"retest {'on other hosts' if self.elsewhere else 'on the same hosts'}: {', '.join(self.jobs)}"


def plan_retests(verdict: Verdict, jobs: Mapping[str, bool], *, times: int) -> tuple[Retest, ...]:
    """What to run again; nothing when it would not help. `jobs` are the flight's, and whether each is a build.

    Something that blocks and cannot be tried again (a build, a job that did not end) keeps the gate shut anyway.
    """
    blocking = dict.fromkeys(one.job for one in verdict.blockers)
    retryable = all(one.kind is Kind.REGRESSION and not jobs.get(one.job, True) for one in verdict.blockers)
    most = max(1, ceil(MOST_SHARE * sum(not build for build in jobs.values())))
    if not blocking or not retryable or len(blocking) > most or verdict.missing:
        return ()
    return tuple(Retest(jobs=tuple(blocking), elsewhere=number % 2 == 1) for number in range(times))


def retest_specs(flight: Sequence[Job], retest: Retest, *, flags: Mapping[str, frozenset[str]]) -> tuple[JobSpec, ...]:
    """The jobs of a retest as they were submitted; they take their builds from the flight itself.

    `flags` are those of every host: where a role finds no other host that offers as much, it may have the same again.
    """
    by_name = {job.name: job for job in flight}
    wanted = [by_name[name] for name in retest.jobs if name in by_name]
    return tuple(_placed(job, by_name, elsewhere=retest.elsewhere, flags=flags) for job in wanted)


def _as_submitted(job: Job, flight: Mapping[str, Job]) -> JobSpec:
    runvars = {one.name: one.value for one in job.runvars if not one.synth}
    for name, value in runvars.items():
        if name.endswith(RUNVAR) and value in flight:
            runvars[name] = f"{job.flight}.{value}"
    return JobSpec(name=job.name, recipe=job.recipe, runvars=MappingProxyType(runvars))


def _placed(job: Job, flight: Mapping[str, Job], *, elsewhere: bool, flags: Mapping[str, frozenset[str]]) -> JobSpec:
    spec = _as_submitted(job, flight)
    used = job.last.hosts if job.last is not None else {}
    bound = {}
    for role, host in used.items():
        flag = f'name == "{host}"'
        if elsewhere:
            alike = [other for other, offered in flags.items() if offered >= flags.get(host, frozenset())]
            if len(set(alike) - set(used.values())) < len(used):
                continue
            flag = " and ".join(f'name != "{other}"' for other in sorted(set(used.values())))
        name = f"{role}_hostflags"
        before = spec.runvars.get(name)
        bound[name] = f"({before}) and {flag}" if before else flag
    return replace(spec, runvars=MappingProxyType({**spec.runvars, **bound}))
