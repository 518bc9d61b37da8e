"""Flights of the past in a few words, for tests of judges."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from lab.flights.past_results import BLOCKED, FAIL, PASS, SKIPPED, STARVED, FlightRun, JobRun, Past, StepRun

Results = Mapping[str, str]
"""'JOB STEP' -> status; a job whose steps all pass passes, else it has the status of its worst step."""


def a_run(flight: int, results: Results) -> FlightRun:
    """The flight with these results."""
    jobs: dict[str, list[StepRun]] = {}
    for numbers, (name, status) in zip(count(1), results.items(), strict=False):
        job, testid = name.split(" ", 1)
        jobs.setdefault(job, []).append(StepRun(testid=testid, status=status, stepno=numbers))
    return FlightRun(flight=flight, jobs=tuple(_job(name, steps) for name, steps in jobs.items()))


def _job(name: str, steps: list[StepRun]) -> JobRun:
    bad = tuple(step for step in steps if step.status not in (PASS, SKIPPED))
    statuses = [step.status for step in bad]
    whole = next(
        (one for one in ("broken", FAIL, BLOCKED, STARVED) if one in statuses), statuses[0] if statuses else PASS
    )
    return JobRun(name=name, status=whole, bad=bad, build=name.startswith("build-"))


def a_past(
    judged: int,
    mine: Results,
    *,
    same: Mapping[int, Results] | None = None,
    baseline: Mapping[int, Results] | None = None,
    never: tuple[str, ...] = (),
) -> Past:
    """The past of the flight `judged` with the results `mine`; the newest flights have the highest numbers."""
    same, baseline = same or {}, baseline or {}
    seen: dict[tuple[str, str], dict[int, str]] = {}
    for flight, results in {judged: mine, **same, **baseline}.items():
        for name, status in results.items():
            job, testid = name.split(" ", 1)
            seen.setdefault((job, testid), {})[flight] = status
    jobs = {name.split(" ", 1)[0] for results in baseline.values() for name in results}
    return Past(
        same=tuple(a_run(flight, same[flight]) for flight in sorted(same, reverse=True)),
        baseline=tuple(sorted(baseline, reverse=True)),
        seen=seen,
        passed={(name.split(" ", 1)[0], name.split(" ", 1)[1]): name not in never for name in mine},
        common=len(jobs & {name.split(" ", 1)[0] for name in mine}) if baseline else None,
    )
