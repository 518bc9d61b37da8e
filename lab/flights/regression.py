"""Which failures of a flight are regressions, by the rules that OSSTest published (policy `osstest`). Pure.

Source of the rules: `justifyfailures` of OSSTest's `sg-report-flight`. Each step that did not pass is compared with
the same step in every flight of the baseline's versions; what would block is looked for in other flights of the same
versions, whose own failures then count as well.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from lab.flights.past_results import (
    BLOCKED,
    BROKEN,
    FAIL,
    PASS,
    SKIPPED,
    STARVED,
    UNFINISHED,
    FlightRun,
    JobRun,
    Past,
    StepRun,
)
from lab.flights.verdict import JOB_STATUS, NONE_EXECUTED, Finding, Kind, Verdict, outcome_of

POLICY: Final = "osstest"

BASELINE_UNTESTED_NOTE: Final = "baseline untested"
_CERTAIN: Final = 500
"""From this priority on a failure is not excused by a pass elsewhere."""
_MOST_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class TestPattern:
    """Tests by name: a glob (`*`, `?`, `[…]`) for the job and one for the testid."""

    __test__ = False

    job: str
    testid: str = "*"

    def matches(self, job: str, testid: str) -> bool:
        """Whether the test is meant."""
        return fnmatch.fnmatchcase(job, self.job) and fnmatch.fnmatchcase(testid, self.testid)


@dataclass(frozen=True)
class Waiver:
    """A failure that a person has said not to count: exactly this test of exactly this job."""

    job: str
    testid: str


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What the comparison with one flight of the baseline says; of several the highest `priority` counts."""

    priority: int
    kind: Kind
    note: str
    flight: int | None


def judge(
    run: FlightRun,
    past: Past,
    *,
    allow: Iterable[TestPattern] = (),
    waived: Collection[Waiver] = (),
    refer_to: Iterable[int] = (),
    needs_passes: int = 1,
) -> Verdict:
    """The verdict on a flight. Findings of its own come first, then those of the flights that excuse it.

    `allow` are tests that never block; `waived` does not block this time. The failures of the flights `refer_to` (of
    the same versions: retests) count in any case. A failure is excused by `needs_passes` passes (OSSTest: by one). A
    flight that shares no job with the flights of its baseline, or fails where the baseline was never tested, has that
    in `missing`.
    """
    findings = list(_Judge(past, tuple(allow), frozenset(waived), needs_passes).of(run, tuple(refer_to)))
    return verdict(run, past, findings, policy=POLICY)


def verdict(run: FlightRun, past: Past, findings: Iterable[Finding], *, policy: str) -> Verdict:
    """The findings as a verdict, with what keeps the gate shut beside them."""
    found = tuple(findings)
    return Verdict(
        flight=run.flight, outcome=outcome_of(found), findings=found, missing=tuple(_missing(past, found)),
        policy=policy,
    )  # fmt: skip


def _missing(past: Past, findings: Iterable[Finding]) -> Iterator[str]:
    if not past.baseline:
        if any(one.kind is Kind.BASELINE_UNTESTED for one in findings):
            yield "the baseline was never tested, so nobody can tell what is new: run a flight of it"
    elif past.common == 0:
        named = ", ".join(str(flight) for flight in past.baseline[:_MOST_NAMED])
        yield f"the baseline's flights ({named}) share no job with this one: run a flight of it with these jobs"


class _Judge:
    """Goes over the flight, and over those that excuse it."""

    def __init__(
        self, past: Past, allow: tuple[TestPattern, ...], waived: frozenset[Waiver], needs_passes: int
    ) -> None:
        self.past = past
        self.allow = allow
        self.waived = waived
        self.needs_passes = needs_passes

    def of(self, first: FlightRun, refer_to: tuple[int, ...]) -> Iterator[Finding]:
        runs = {run.flight: run for run in (*self.past.same, first)}
        told = set[tuple[str, str]]()
        done = set[int]()
        to_do = [first.flight, *(flight for flight in refer_to if flight in runs)]
        while to_do:
            run = runs[to_do.pop(0)]
            if run.flight in done:
                continue
            done.add(run.flight)
            # that a job of another flight was broken says nothing when the flight itself has come to a verdict on it
            settled = {job.name for job in first.jobs if job.status in (PASS, FAIL)} if run is not first else set()
            for finding in self._findings(run, first.flight, list(runs), settled):
                if finding.signature in told:
                    continue
                told.add(finding.signature)
                if finding.kind is Kind.HEISENBUG and finding.ref_flight is not None:
                    to_do.append(finding.ref_flight)
                yield replace(finding, seen_in=None if run is first else run.flight)

    def _findings(self, run: FlightRun, first: int, flights: list[int], settled: set[str]) -> Iterator[Finding]:
        for job in run.jobs:
            if job.name not in settled and (whole := job_finding(job)) is not None:
                yield let_off(whole, self.allow, self.waived)
            for step in job.bad:
                yield let_off(self._step(job, step, run.flight, first, flights), self.allow, self.waived)

    def _step(self, job: JobRun, step: StepRun, flight: int, first: int, flights: list[int]) -> Finding:
        if (plain := plain_finding(job, step, self.past)) is not None:
            return plain
        told = compare(job, step, self.past)
        finding = _finding(
            job, step, told.kind, note=told.note, ref=told.flight, reasons=_why(told, job, step, self.past)
        )
        if not finding.blocks or told.priority >= _CERTAIN:
            return finding
        test = (job.name, step.testid)
        # the judged flight itself comes first: it needs no further excuse
        others = [one for one in dict.fromkeys((first, *flights)) if one != flight]
        passes = [one for one in others if self.past.status(test, one) == PASS]
        if len(passes) < max(1, self.needs_passes):
            return _with_reason(finding, _not_excused(self.past, test, others, self.needs_passes))
        better = passes[0]
        return _finding(
            job, step, Kind.HEISENBUG, note=f"pass in {better}", ref=better,
            reasons=(
                *finding.reasons[:-1],
                f"of the same versions: {_runs(self.past, test, [flight, *others])}; so it comes and goes",
                f"it would block ({told.note}) with fewer than {max(1, self.needs_passes)} passes",
            ),
        )  # fmt: skip


def let_off(finding: Finding, allow: tuple[TestPattern, ...], waived: Collection[Waiver]) -> Finding:
    """What people have said about a test has the last word: a finding that they let off does not block."""
    if not finding.blocks:
        return finding
    if Waiver(finding.job, finding.testid) in waived:
        return replace(finding, kind=Kind.WAIVED, blocks=False, reasons=(*finding.reasons, "somebody has waived it"))
    for pattern in allow:
        if pattern.matches(finding.job, finding.testid):
            why = f"the branch allows it to fail ({pattern.job} {pattern.testid})"
            return replace(finding, kind=Kind.ALLOWABLE, blocks=False, reasons=(*finding.reasons, why))
    return finding


def job_finding(job: JobRun) -> Finding | None:
    """What is to be said of a job beside its steps: it was broken, or it ended badly without a step that did."""
    if job.status in UNFINISHED:
        return _of_job(job, NONE_EXECUTED if not job.bad else JOB_STATUS, Kind.UNFINISHED, "it has not ended")
    if job.status in (BROKEN, "aborted"):
        return _of_job(job, JOB_STATUS, Kind.JOB_STATUS, f"the job is {job.status}: it says nothing of what was tested")
    if job.bad or job.status == PASS:
        return None
    if job.status in (BLOCKED, STARVED):
        return _of_job(job, NONE_EXECUTED, Kind.NA, f"the job was {job.status}", note="n/a")
    return _of_job(job, NONE_EXECUTED, Kind.JOB_STATUS, f"the job is {job.status}, and no step of it says why")


def plain_finding(job: JobRun, step: StepRun, past: Past) -> Finding | None:
    """The finding on a step that needs no comparison; None when it does."""
    if step.status == STARVED or (step.status == BLOCKED and not step.own):
        return _finding(job, step, Kind.NA, note="n/a", reasons=("whatever kept it from running is judged itself",))
    if step.status in UNFINISHED:
        return _finding(job, step, Kind.UNFINISHED, note="unfinished", reasons=("it has not ended",))
    if step.status not in (FAIL, BROKEN, BLOCKED):
        return _finding(job, step, Kind.JOB_STATUS, reasons=(f"{step.status} says nothing of what was tested",))
    if past.passed.get((job.name, step.testid)) is False:
        why = "it has not passed in any flight of the branch that counts", "one such pass, and it will be compared"
        return _finding(job, step, Kind.NEVER_PASS, note="never pass", reasons=why)
    return None


def compare(job: JobRun, step: StepRun, past: Past) -> Compared:
    """The step against the baseline: of all flights there the one that says most, of equals the newest."""
    found = [
        told
        for flight, status in past.with_baseline((job.name, step.testid))
        if (told := _compared(job, step, flight, status)) is not None
    ]
    untested = Compared(priority=10, kind=Kind.BASELINE_UNTESTED, note=BASELINE_UNTESTED_NOTE, flight=None)
    return max(found, key=lambda told: told.priority, default=untested)


def _compared(job: JobRun, step: StepRun, flight: int, status: str) -> Compared | None:
    """The table of priorities. A step that was skipped says nothing: what it needs stood ready there."""
    if status == PASS:
        return Compared(
            priority=600 if job.build else 100, kind=Kind.REGRESSION, note=f"REGR. vs. {flight}", flight=flight
        )
    if status == SKIPPED or status in UNFINISHED:
        return None
    if status == step.status:
        return Compared(priority=190, kind=Kind.LIKE, note=f"like {flight}", flight=flight)
    if status == FAIL:
        return Compared(priority=180, kind=Kind.FAILED_IN, note=f"failed in {flight}", flight=flight)
    if status == BLOCKED:
        return Compared(priority=50, kind=Kind.BLOCKED_IN, note=f"blocked in {flight}", flight=flight)
    if status == STARVED:
        return Compared(priority=50, kind=Kind.STARVED_IN, note=f"starved in {flight}", flight=flight)
    return Compared(priority=170, kind=Kind.STATUS_IN, note=f"{status} in {flight}", flight=flight)


BLOCKING: Final = frozenset({Kind.REGRESSION, Kind.JOB_STATUS, Kind.UNFINISHED})


def _finding(
    job: JobRun, step: StepRun, kind: Kind, *, note: str = "", ref: int | None = None, reasons: tuple[str, ...] = ()
) -> Finding:
    return Finding(
        job=job.name, testid=step.testid, stepno=step.stepno, status=step.status, kind=kind, blocks=kind in BLOCKING,
        note=note, ref_flight=ref, reasons=reasons,
    )  # fmt: skip


def _of_job(job: JobRun, testid: str, kind: Kind, reason: str, *, note: str = "") -> Finding:
    return Finding(
        job=job.name, testid=testid, status=job.status, kind=kind, blocks=kind in BLOCKING, note=note,
        reasons=(reason,),
    )  # fmt: skip


def _with_reason(finding: Finding, reason: str) -> Finding:
    return replace(finding, reasons=(*finding.reasons[:-1], reason, *finding.reasons[-1:]))


def _not_excused(past: Past, test: tuple[str, str], others: list[int], needs: int) -> str:
    seen = _runs(past, test, others)
    if not seen:
        return "no other flight of the same versions has run it"
    asked = f"; {needs} passes would excuse it" if needs > 1 else ""
    return f"other flights of the same versions do not excuse it: {seen}{asked}"


def _runs(past: Past, test: tuple[str, str], flights: list[int]) -> str:
    """All that is known of a test in these flights, so that nobody has to trust one run."""
    return _some([f"{status} in {one}" for one in flights if (status := past.status(test, one)) is not None])


def _why(told: Compared, job: JobRun, step: StepRun, past: Past) -> tuple[str, ...]:
    """Which runs say so; the last line is the counterfactual: what would have to be otherwise."""
    runs = past.with_baseline((job.name, step.testid))
    if not runs:
        return ("no flight of the baseline's versions has this test", "a flight of the baseline would tell")
    counts = f"with the baseline's versions: {_some([f'{status} in {flight}' for flight, status in runs])}"
    if told.kind is Kind.REGRESSION:
        if job.build:
            return counts, "it would not block if this build passed; a pass elsewhere does not excuse one that fails"
        flaky = f"a flight of the baseline in which it is {step.status}, too, or a pass of the same versions"
        return counts, f"{flaky} (a retest) would let it through"
    passes = [flight for flight, status in runs if status == PASS]
    if passes:
        same = [flight for flight, status in runs if status not in (PASS, SKIPPED)]
        return counts, f"it would block without {_some([str(one) for one in same])}, for it passed there in {passes[0]}"
    return counts, "it would block if it had passed with the baseline"


def _some(words: list[str]) -> str:
    more = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
