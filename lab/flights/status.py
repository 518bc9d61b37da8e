"""The states of jobs and steps, the moves between them, and how outcomes add up."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from lab.errors import Aborted, Blocked, LabBug, StepFailure


class JobStatus(enum.Enum):
    """Where a job stands. *fail* blames the product, *broken* the lab."""

    #: waiting for a host
    QUEUED = "queued"
    #: hosts are leased, a worker is about to start or is setting them up
    PREPARING = "preparing"
    #: the recipe runs
    RUNNING = "running"
    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    BROKEN = "broken"
    #: something this job needs is not there: a job that did not pass, or support in its Xen or its host
    BLOCKED = "blocked"
    #: given up because hardware is too contended
    STARVED = "starved"
    #: stopped by a person
    ABORTED = "aborted"

    @property
    def final(self) -> bool:
        """True when the job will not move any more."""
        return not _NEXT[self]

    @property
    def active(self) -> bool:
        """True while the job may hold hosts."""
        return self in (JobStatus.PREPARING, JobStatus.RUNNING)


class StepStatus(enum.Enum):
    """What came of one step. *skipped*: not needed here (a reused host) or not supported, and the log says why."""

    RUNNING = "running"
    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    BROKEN = "broken"
    BLOCKED = "blocked"
    SKIPPED = "skipped"
    ABORTED = "aborted"

    @property
    def final(self) -> bool:
        """True once the step has ended."""
        return self is not StepStatus.RUNNING


class Blessing(enum.Enum):
    """What a flight counts as. It is *constructing*, then *running*, then what was intended."""

    CONSTRUCTING = "constructing"
    RUNNING = "running"
    REAL = "real"
    REAL_BISECT = "real-bisect"
    REAL_RETEST = "real-retest"
    PLAY = "play"
    ADHOC = "adhoc"
    BROKEN = "broken"


INTENDED: Final = frozenset({Blessing.REAL, Blessing.REAL_BISECT, Blessing.REAL_RETEST, Blessing.PLAY, Blessing.ADHOC})

_J = JobStatus
_NEXT: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    _J.QUEUED: frozenset({_J.PREPARING, _J.BLOCKED, _J.STARVED, _J.ABORTED, _J.BROKEN}),
    # back to queued: the attempt was broken and another one is allowed
    _J.PREPARING: frozenset({_J.RUNNING, _J.QUEUED, _J.FAIL, _J.BROKEN, _J.BLOCKED, _J.ABORTED}),
    _J.RUNNING: frozenset({_J.PASS, _J.FAIL, _J.BROKEN, _J.BLOCKED, _J.QUEUED, _J.ABORTED}),
    _J.PASS: frozenset(),
    _J.FAIL: frozenset(),
    _J.BROKEN: frozenset(),
    _J.BLOCKED: frozenset(),
    _J.STARVED: frozenset(),
    _J.ABORTED: frozenset(),
}


class IllegalTransitionError(LabBug):
    """A status was asked to move where it cannot go."""


def advance(current: JobStatus, to: JobStatus) -> JobStatus:
    """The one way to move a job: returns `to`, or raises `IllegalTransitionError`."""
    if to not in _NEXT[current]:
        raise IllegalTransitionError(f"a job cannot go from {current.value} to {to.value}")
    return to


_SEVERITY: Final = (
    # no outcome yet is worse than any outcome, so that an unfinished flight is never called a pass
    _J.PASS,
    _J.STARVED,
    _J.BLOCKED,
    _J.FAIL,
    _J.BROKEN,
    _J.ABORTED,
    _J.RUNNING,
    _J.PREPARING,
    _J.QUEUED,
)


def worst(statuses: Iterable[JobStatus]) -> JobStatus:
    """The status of the whole: unfinished > aborted > broken > fail > blocked > starved > pass. Empty: pass."""
    return max(statuses, key=_SEVERITY.index, default=JobStatus.PASS)


def flight_status(statuses: Iterable[JobStatus]) -> JobStatus:
    """The status of a flight of jobs: its worst one, but *running* as soon as any job was touched.

    >>> flight_status([JobStatus.PASS, JobStatus.QUEUED]).value
    'running'
    """
    seen = list(statuses)
    total = worst(seen)
    if not total.final and any(status is not JobStatus.QUEUED for status in seen):
        return JobStatus.RUNNING
    return total


_EXIT_CODES: Final[Mapping[JobStatus, int]] = {
    _J.PASS: 0,
    _J.FAIL: 1,
    _J.BLOCKED: 1,
    _J.STARVED: 1,
    _J.BROKEN: 3,
    _J.ABORTED: 4,
    _J.QUEUED: 5,
    _J.PREPARING: 5,
    _J.RUNNING: 5,
}


def exit_code(status: JobStatus) -> int:
    """The verdict as an exit code: 0 pass, 1 the product failed or was not tested, 3 lab, 4 aborted, 5 unfinished."""
    return _EXIT_CODES[status]


def step_status_of(error: BaseException, iffail: StepStatus) -> StepStatus:
    """What an exception in a step means: only `StepFailure` takes the recipe line's word; the rest is *broken*."""
    match error:
        case StepFailure():
            return iffail
        case Blocked():
            return StepStatus.BLOCKED
        case Aborted() | KeyboardInterrupt():
            return StepStatus.ABORTED
        case _:
            return StepStatus.BROKEN


_STEP_TO_JOB: Final[Mapping[StepStatus, JobStatus]] = {
    StepStatus.PASS: _J.PASS,
    StepStatus.SKIPPED: _J.PASS,
    StepStatus.FAIL: _J.FAIL,
    StepStatus.BROKEN: _J.BROKEN,
    StepStatus.BLOCKED: _J.BLOCKED,
    StepStatus.ABORTED: _J.ABORTED,
    StepStatus.RUNNING: _J.BROKEN,
}


def job_status_of(steps: Iterable[StepStatus]) -> JobStatus:
    """What an ended attempt amounts to: its first step that did not pass decides (later ones may only follow from it).

    A step that never ended counts as *broken*: whoever ran it died.
    """
    for status in steps:
        outcome = _STEP_TO_JOB[status]
        if outcome is not JobStatus.PASS:
            return outcome
    return JobStatus.PASS
