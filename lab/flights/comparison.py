"""What differs between two flights: outcomes of jobs and steps, revisions, settings, durations. Pure."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from lab.flights.builds import RECIPE
from lab.flights.model import FlightSummary
from lab.flights.views import flight_summary

MUCH_LONGER: Final = 1.5
"""A duration that is so many times as long as the other one differs much …"""
MUCH_S: Final = 20.0
"""… if it is so many seconds longer, too."""


@dataclass(frozen=True, kw_only=True)
class StepOutline:
    """A step as it is compared; `seconds` is None while it runs."""

    testid: str
    stepno: int
    status: str
    seconds: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class JobOutline:
    """A job as it is compared: its newest attempt. `settings` are the runvars it was defined with."""

    name: str
    recipe: str
    status: str
    reason: str
    attempts: int = 0
    hosts: tuple[str, ...] = ()
    seconds: float | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    commit: str = ""
    """what a build job compiled, once that is known"""
    steps: tuple[StepOutline, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A flight as it is compared; its jobs by name, in their order."""

    flight: FlightSummary
    jobs: Mapping[str, JobOutline]


class Change(enum.Enum):
    """How the second flight's outcome looks beside the first one's."""

    WORSE = "worse"
    BETTER = "better"
    OTHER = "other"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class StepChange:
    """A step with another outcome; None where it was not run."""

    testid: str
    change: Change
    a: StepOutline | None
    b: StepOutline | None


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """A job with another outcome, or with steps that have one."""

    name: str
    change: Change
    a: JobOutline | None
    b: JobOutline | None
    steps: tuple[StepChange, ...]


@dataclass(frozen=True, kw_only=True)
class ValueChange:
    """Jobs in which something has another value: a source tree's revision, or a runvar. Empty: it had none."""

    name: str
    a: str
    b: str
    jobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DurationChange:
    """A step that passed in both flights and took much longer in one. Seconds.

    `alike`: on hosts of the same classes; otherwise the hosts may be why.
    """

    job: str
    testid: str
    a: StepOutline
    b: StepOutline
    a_s: float
    b_s: float
    a_hosts: tuple[str, ...]
    b_hosts: tuple[str, ...]
    alike: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between flights `a` and `b`; `same` jobs had the same outcome in each of their steps."""

    a: FlightSummary
    b: FlightSummary
    jobs: tuple[JobChange, ...]
    same: int
    revisions: tuple[ValueChange, ...]
    settings: tuple[ValueChange, ...]
    durations: tuple[DurationChange, ...]


def compare(a: Outline, b: Outline, classes: Mapping[str, str] = MappingProxyType({})) -> Comparison:
    """Hold two flights against each other: what became worse first, then as the jobs stand in the flights.

    `classes` are those of the hosts, by name; the durations that grew most come first.
    """
    names = list(dict.fromkeys([*b.jobs, *a.jobs]))
    both = [(a.jobs[name], b.jobs[name]) for name in names if name in a.jobs and name in b.jobs]
    changes = [change for name in names if (change := _job_change(name, a.jobs.get(name), b.jobs.get(name)))]
    order = list(Change)
    return Comparison(
        a=a.flight,
        b=b.flight,
        jobs=tuple(sorted(changes, key=lambda one: order.index(one.change))),
        same=len(names) - len(changes),
        revisions=_values(a, b, _revision),
        settings=_settings(a, b),
        durations=tuple(
            sorted((one for pair in both for one in _durations(*pair, classes)), key=lambda one: one.a_s - one.b_s)
        ),
    )


_GOOD: Final = frozenset({"pass", "skipped"})
_OPEN: Final = frozenset({"queued", "preparing", "running", ""})


def _change(a: str, b: str) -> Change:
    if (a in _GOOD) != (b in _GOOD) and not {a, b} & _OPEN:
        return Change.BETTER if b in _GOOD else Change.WORSE
    return Change.OTHER


def _job_change(name: str, a: JobOutline | None, b: JobOutline | None) -> JobChange | None:
    if a is None or b is None:
        return JobChange(name=name, change=Change.ADDED if a is None else Change.REMOVED, a=a, b=b, steps=())
    steps = _step_changes(a, b)
    if a.status == b.status and not steps:
        return None
    return JobChange(name=name, change=_change(a.status, b.status), a=a, b=b, steps=steps)


def _step_changes(a: JobOutline, b: JobOutline) -> tuple[StepChange, ...]:
    """The steps with another outcome; one that is only in one flight counts if it went wrong there."""
    before, after = ({step.testid: step for step in job.steps} for job in (a, b))
    found = []
    for testid in dict.fromkeys([*after, *before]):
        one, other = before.get(testid), after.get(testid)
        if one is not None and other is not None:
            if one.status != other.status:
                found.append(StepChange(testid=testid, change=_change(one.status, other.status), a=one, b=other))
        elif (there := one or other) is not None and there.status not in _GOOD | _OPEN:
            change = Change.WORSE if one is None else Change.OTHER
            found.append(StepChange(testid=testid, change=change, a=one, b=other))
    return tuple(found)


def _revision(job: JobOutline) -> Mapping[str, str]:
    if job.recipe != RECIPE:
        return {}
    commit = job.commit or job.settings.get("revision", "")
    return {job.settings.get("tree", "xen"): commit} if commit else {}


def _settings(a: Outline, b: Outline) -> tuple[ValueChange, ...]:
    def settings(job: JobOutline) -> Mapping[str, str]:
        return {name: value for name, value in job.settings.items() if name != "revision"}

    return _values(a, b, settings)


def _values(a: Outline, b: Outline, of: Callable[[JobOutline], Mapping[str, str]]) -> tuple[ValueChange, ...]:
    """What `of` tells of the jobs of both flights, where it differs; jobs that differ alike together."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in b.jobs:
        if name not in a.jobs:
            continue
        before, after = of(a.jobs[name]), of(b.jobs[name])
        for key in sorted({*before, *after}):
            if before.get(key, "") != after.get(key, ""):
                found[key, before.get(key, ""), after.get(key, "")].append(name)
    return tuple(ValueChange(name=key, a=old, b=new, jobs=tuple(jobs)) for (key, old, new), jobs in found.items())


def _durations(a: JobOutline, b: JobOutline, classes: Mapping[str, str]) -> list[DurationChange]:
    alike = [classes.get(host, host) for host in a.hosts] == [classes.get(host, host) for host in b.hosts]
    before = {step.testid: step for step in a.steps if step.status == "pass"}
    found = []
    for step in b.steps:
        other = before.get(step.testid)
        if step.status != "pass" or other is None or step.seconds is None or other.seconds is None:
            continue
        short, long = sorted((step.seconds, other.seconds))
        if long >= MUCH_LONGER * short and long - short >= MUCH_S:
            found.append(
                DurationChange(
                    alike=alike, job=a.name, testid=step.testid, a=other, b=step, a_s=other.seconds, b_s=step.seconds,
                    a_hosts=a.hosts, b_hosts=b.hosts,
                )
            )  # fmt: skip
    return found


def comparison_view(one: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    return {
        "a": flight_summary(one.a),
        "b": flight_summary(one.b),
        "same": one.same,
        "jobs": [
            {
                "job": job.name,
                "change": job.change.value,
                "a": job.a.status if job.a else None,
                "b": job.b.status if job.b else None,
                "steps": [
                    {
                        "testid": step.testid,
                        "change": step.change.value,
                        "a": step.a.status if step.a else None,
                        "b": step.b.status if step.b else None,
                        "a_reason": step.a.reason if step.a else "",
                        "b_reason": step.b.reason if step.b else "",
                    }
                    for step in job.steps
                ],
            }
            for job in one.jobs
        ],
        "revisions": [_value_view(change) for change in one.revisions],
        "settings": [_value_view(change) for change in one.settings],
        "durations": [
            {
                "job": each.job,
                "testid": each.testid,
                "a_s": round(each.a_s, 1),
                "b_s": round(each.b_s, 1),
                "alike": each.alike,
            }
            for each in one.durations
        ],
    }


def _value_view(change: ValueChange) -> dict[str, Any]:
    return {"name": change.name, "a": change.a, "b": change.b, "jobs": list(change.jobs)}
