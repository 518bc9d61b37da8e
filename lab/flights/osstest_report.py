"""A flight as OSSTest reported it, and what such reports tell of flights: the past that a judge needs. Pure.

A report names the steps that did not succeed. Of a job that it lists, every other step passed or was not there; it
tells a little about other flights of the same versions, too: "fail in 12" and "pass in 13" are facts about 12 and 13.
What no report tells stays unknown: that a test had never passed is not concluded from a file that begins somewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lab.flights.past_results import BLOCKED, FAIL, PASS, STARVED, FlightRun, JobRun, Past, Signature, StepRun
from lab.flights.verdict import JOB_STATUS, NONE_EXECUTED, Kind

_COMPARED: Final = frozenset(
    {Kind.REGRESSION, Kind.LIKE, Kind.FAILED_IN, Kind.STATUS_IN, Kind.HEISENBUG, Kind.BLOCKED_IN, Kind.STARVED_IN}
)
"""What OSSTest says only of tests that have passed some time."""
_ACCEPTED: Final = ("real", "real-bisect")
"""The blessings of flights that OSSTest compares with."""
_GOES_ON: Final = ("xtf/", "examine-serial/", "examine-iommu", "capture-logs", "logs-capture", "leak-check")
"""Steps after whose failure a job goes on (the parts of one step), or which run however it went."""
_AT_THE_END: Final = ("capture-logs", "logs-capture", "leak-check")


@dataclass(frozen=True, kw_only=True)
class ReportedFailure:
    """A failure as it was published. `ref_flight` is the flight named in its note, `seen_in` where else it was seen."""

    section: str
    job: str
    testid: str
    status: str
    kind: Kind
    note: str = ""
    stepno: int | None = None
    ref_flight: int | None = None
    seen_in: int | None = None

    @property
    def test(self) -> Signature:
        """(job, testid)"""
        return self.job, self.testid


@dataclass(frozen=True, kw_only=True)
class ReportedFlight:
    """A report: what was tested against what, the jobs with their statuses, the failures in the order of the mail."""

    flight: int
    branch: str
    date: datetime
    blessing: str
    headline: str
    this: Mapping[str, str]
    that: Mapping[str, str]
    jobs: Mapping[str, str]
    failures: tuple[ReportedFailure, ...] = ()
    baseline_flight: int | None = None
    retests: tuple[int, ...] = ()

    def own(self, job: str) -> list[ReportedFailure]:
        """The failures of a job in this very flight."""
        return [one for one in self.failures if one.job == job and one.seen_in in (None, self.flight)]


@dataclass(frozen=True, kw_only=True)
class Mentioned:
    """A flight of which reports of others tell something: single steps, and when each was known."""

    flight: int
    branch: str
    versions: Mapping[str, str]
    steps: dict[Signature, tuple[str, int | None, datetime]] = field(default_factory=dict)


class Reports:
    """What a set of reports tells. `ValueError` when two of them are of one flight."""

    def __init__(self, reports: Iterable[ReportedFlight]) -> None:
        self.flights: dict[int, ReportedFlight] = {}
        for report in reports:
            if report.flight in self.flights:
                raise ValueError(f"there are two reports of flight {report.flight}; remove one")
            self.flights[report.flight] = report
        self.mentioned = self._mentioned()
        self._goes_on = self._going_on()

    def run(self, report: ReportedFlight) -> FlightRun:
        """The flight as the judge sees it."""
        return FlightRun(
            flight=report.flight,
            jobs=tuple(
                JobRun(
                    name=name,
                    status=status,
                    build=name.startswith("build-"),
                    bad=tuple(
                        StepRun(testid=one.testid, status=one.status, stepno=one.stepno)
                        for one in report.own(name)
                        if one.testid not in (JOB_STATUS, NONE_EXECUTED)
                    ),
                )
                for name, status in self._listed(report).items()
            ),
        )

    def past(self, report: ReportedFlight) -> Past:
        """What was known of the past when the flight was reported. Its own classifications are not looked at."""
        known = [one for one in self.flights.values() if one.date <= report.date and one.branch == report.branch]
        known = [one for one in known if one.blessing in _ACCEPTED]
        mentioned = [one for one in self.mentioned.values() if one.branch == report.branch]
        # OSSTest counts retests only for the flight that they are of
        of_others = {flight for one in self.flights.values() for flight in one.retests} - self._referred(report)
        counted = [one for one in mentioned if one.flight not in of_others]
        same = {one.flight for one in known if _tests(one.this, report.this)}
        same |= {one.flight for one in counted if _tests(one.versions, report.this)}
        baseline = {one.flight for one in known if _tests(one.this, report.that)}
        retests = of_others | self._referred(report)
        baseline |= {one.flight for one in counted if _tests(one.versions, report.that) and one.flight not in retests}
        baseline |= {report.baseline_flight} if report.baseline_flight is not None else set()
        same.discard(report.flight)
        baseline.discard(report.flight)
        runs = tuple(self.run_of(flight, report) for flight in sorted(same, reverse=True))
        tests: dict[Signature, int | None] = {}
        for run in (self.run(report), *runs):
            for job, step in run.steps():
                tests.setdefault((job.name, step.testid), step.stepno)
        seen = {
            test: {
                flight: status
                for flight in (report.flight, *same, *baseline)
                if (status := self.status(flight, test, stepno, report.date)) is not None
            }
            for test, stepno in tests.items()
        }
        jobs_before = {job for flight in baseline if flight in self.flights for job in self.flights[flight].jobs}
        return Past(
            same=runs,
            baseline=tuple(sorted(baseline, reverse=True)),
            seen=seen,
            passed=self._passed(tests, report, known),
            common=len(jobs_before & report.jobs.keys()) if jobs_before else None,
        )

    def refer_to(self, report: ReportedFlight) -> list[int]:
        """The other flights of which the report tells failures."""
        named = {one.seen_in for one in report.failures if one.seen_in is not None}
        return sorted(named - {report.flight})

    def status(self, flight: int, test: Signature, stepno: int | None, by: datetime) -> str | None:
        """What the reports up to `by` tell of a step in a flight; None: nothing."""
        report = self.flights.get(flight)
        if report is not None and report.date <= by:
            return self._reported(report, test, stepno)
        other = self.mentioned.get(flight)
        return None if other is None else self._told(other, test, stepno, by)

    def _reported(self, report: ReportedFlight, test: Signature, stepno: int | None) -> str | None:
        job, testid = test
        status = report.jobs.get(job)
        bad = report.own(job)
        for one in bad:
            if one.testid == testid:
                return one.status
        if status is None or status in (PASS, STARVED, BLOCKED):
            return status
        steps = [one for one in bad if one.stepno is not None]
        ends = [one.stepno for one in steps if one.stepno is not None and self._ends(one.testid)]
        if not ends:
            return PASS if steps and status == FAIL else None
        return _beside(max(ends), stepno)

    def _told(self, other: Mentioned, test: Signature, stepno: int | None, by: datetime) -> str | None:
        fact = other.steps.get(test)
        if fact is not None:
            return fact[0] if fact[2] <= by else None
        if stepno is None:
            return None
        facts = [
            (testid, status, number)
            for (job, testid), (status, number, known) in other.steps.items()
            if job == test[0] and known <= by and number is not None
        ]
        if any(stepno < number for _, _, number in facts):
            return PASS
        if any(status == FAIL and number < stepno and self._ends(testid) for testid, status, number in facts):
            return BLOCKED
        return None

    def _passed(
        self, tests: Mapping[Signature, int | None], report: ReportedFlight, known: list[ReportedFlight]
    ) -> dict[Signature, bool]:
        """Whether each test had ever passed, as far as the other reports tell."""
        earlier = [one for one in known if one.flight != report.flight]
        said: dict[Signature, set[Kind]] = defaultdict(set)
        for one in earlier:
            for failure in one.failures:
                said[failure.test].add(failure.kind)
        passed = {}
        for test, stepno in tests.items():
            if said[test] & _COMPARED or any(self._reported(one, test, stepno) == PASS for one in earlier):
                passed[test] = True
            elif self._said_never(test, earlier, report):
                passed[test] = False
        return passed

    @staticmethod
    def _said_never(test: Signature, earlier: list[ReportedFlight], report: ReportedFlight) -> bool:
        """Whether a report of the same versions says that the test had not passed till then."""
        return any(
            one.kind is Kind.NEVER_PASS and one.test == test
            for other in earlier
            if _tests(other.this, report.this)
            for one in other.failures
        )

    def of_branch(self, branch: str) -> list[ReportedFlight]:
        """The reports of a branch."""
        return [one for one in self.flights.values() if one.branch == branch]

    def run_of(self, flight: int, judged: ReportedFlight) -> FlightRun:
        """What the reports up to that of `judged` tell of a flight that failed."""
        if (report := self.flights.get(flight)) is not None and report.date <= judged.date:
            return self.run(report)
        jobs: dict[str, list[StepRun]] = defaultdict(list)
        for (job, testid), (status, stepno, known) in self.mentioned[flight].steps.items():
            if status != PASS and known <= judged.date:
                jobs[job].append(StepRun(testid=testid, status=status, stepno=stepno))
        return FlightRun(
            flight=flight,
            jobs=tuple(
                JobRun(name=name, status=FAIL, bad=tuple(bad), build=name.startswith("build-"))
                for name, bad in jobs.items()
            ),
        )

    @staticmethod
    def _referred(report: ReportedFlight) -> set[int]:
        named = {flight for one in report.failures for flight in (one.ref_flight, one.seen_in) if flight is not None}
        return named | set(report.retests)

    def _mentioned(self) -> dict[int, Mentioned]:
        found: dict[int, Mentioned] = {}
        for report in sorted(self.flights.values(), key=lambda one: one.date):
            for one in report.failures:
                if one.seen_in is not None:
                    self._mention(found, one.seen_in, report, one, one.status)
                if one.kind is Kind.HEISENBUG and one.ref_flight is not None:
                    self._mention(found, one.ref_flight, report, one, PASS)
        return found

    def _mention(
        self, found: dict[int, Mentioned], flight: int, report: ReportedFlight, one: ReportedFailure, status: str
    ) -> None:
        if flight in self.flights:
            return
        other = found.setdefault(flight, Mentioned(flight=flight, branch=report.branch, versions=report.this))
        other.steps.setdefault(one.test, (status, one.stepno, report.date))

    def _going_on(self) -> frozenset[str]:
        """The tests after whose failure a job goes on: seen to fail in jobs that passed, or before another failure."""
        found = set()
        for report in self.flights.values():
            for job, status in report.jobs.items():
                numbers = [(one.stepno, one.testid) for one in report.own(job) if one.stepno is not None]
                last = max((number for number, testid in numbers if not testid.startswith(_AT_THE_END)), default=0)
                found |= {testid for number, testid in numbers if status == PASS or number < last}
        return frozenset(found)

    def _ends(self, testid: str) -> bool:
        """Whether a job ends with the failure of this test."""
        return not (testid in self._goes_on or testid.startswith(_GOES_ON) or testid.endswith("-support-check"))

    @staticmethod
    def _listed(report: ReportedFlight) -> dict[str, str]:
        """The jobs, and those that only the failures name."""
        jobs = dict(report.jobs)
        for one in report.failures:
            if one.seen_in in (None, report.flight):
                jobs.setdefault(one.job, one.status if one.status in (BLOCKED, STARVED) else FAIL)
        return jobs


def _tests(versions: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a flight of these versions tested the wanted ones; trees that nobody asks for do not matter."""
    return bool(wanted) and all(versions.get(tree) == revision for tree, revision in wanted.items())


def _beside(ends: int, stepno: int | None) -> str | None:
    """A step of a job that ended with the failure of step `ends`: it passed before it, and was not reached after it."""
    if stepno is None or stepno == ends:
        return None
    return PASS if stepno < ends else BLOCKED
