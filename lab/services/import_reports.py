"""Import: flights that OSSTest reported become flights of this lab, to be looked at and judged like its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy.orm import Session

from lab.db.imports import RECIPE, ImportedJob, add_imported_flight
from lab.flights import builds
from lab.flights.osstest_report import Mentioned, ReportedFlight, Reports
from lab.flights.past_results import PASS, FlightRun, JobRun, Signature, StepRun
from lab.flights.status import Blessing, JobStatus, StepStatus

_STATUSES: Final = {status.value for status in StepStatus}
_JOB_STATUSES: Final = {status.value for status in JobStatus}


def import_reports(session: Session, reports: Reports) -> list[int]:
    """Insert every flight of which the reports tell, under its own number, the earliest report first.

    A step that passed is there if a report of the branch names the same test elsewhere; of others nothing is known.
    Flights that are only mentioned have the few jobs and steps that are told of them. Returns the numbers. Nothing is
    inserted (`ConfigError`) when this lab has a flight of one of the numbers.
    """
    added = []
    for report in sorted(reports.flights.values(), key=lambda one: (one.date, one.flight)):
        for other in reports.mentioned.values():
            if other.flight not in added and _first_told(other) == report.date:
                _add_mentioned(session, reports, other, report)
                added.append(other.flight)
        _add_reported(session, reports, report)
        added.append(report.flight)
    return added


def _add_reported(session: Session, reports: Reports, report: ReportedFlight) -> None:
    tests = {one.test: one.stepno for other in reports.of_branch(report.branch) for one in other.failures if one.stepno}
    run = reports.run(report)
    add_imported_flight(
        session, report.flight, branch=report.branch, blessing=report.blessing, ended=report.date,
        versions=report.this, note="reported by OSSTest",
        jobs=[_job(job, list(_passed(reports, report.flight, job, tests, report))) for job in run.jobs],
    )  # fmt: skip


def _passed(
    reports: Reports, flight: int, job: JobRun, tests: dict[Signature, int], report: ReportedFlight
) -> Iterator[StepRun]:
    for (name, testid), stepno in tests.items():
        if name == job.name and reports.status(flight, (name, testid), stepno, report.date) == PASS:
            yield StepRun(testid=testid, status=PASS, stepno=stepno)


def _add_mentioned(session: Session, reports: Reports, other: Mentioned, report: ReportedFlight) -> None:
    run = reports.run_of(other.flight, report)
    bad = {job.name: job for job in run.jobs}
    passed: dict[str, list[StepRun]] = {}
    for (job, testid), (status, stepno, _) in other.steps.items():
        if status == PASS:
            passed.setdefault(job, []).append(StepRun(testid=testid, status=PASS, stepno=stepno))
    jobs = [bad.get(name) or JobRun(name=name, status=PASS) for name in dict.fromkeys([*bad, *passed])]
    retest = any(other.flight in one.retests for one in reports.flights.values())
    add_imported_flight(
        session, other.flight, branch=other.branch,
        blessing=Blessing.REAL_RETEST.value if retest else Blessing.REAL.value, ended=report.date,
        versions=other.versions, note="mentioned in a report of OSSTest; most of it is not known",
        jobs=[_job(job, passed.get(job.name, [])) for job in FlightRun(flight=other.flight, jobs=tuple(jobs)).jobs],
    )  # fmt: skip


def _job(job: JobRun, passed: list[StepRun]) -> ImportedJob:
    """Steps get their own numbers again where two have the same: those of different versions of a recipe do."""
    steps: dict[int, StepRun] = {}
    for step in (*job.bad, *passed):
        number = step.stepno or 1
        while number in steps:
            number += 1
        if all(step.testid != other.testid for other in steps.values()):
            status = step.status if step.status in _STATUSES else StepStatus.BLOCKED.value
            steps[number] = StepRun(testid=step.testid, status=status, stepno=number)
    return ImportedJob(
        name=job.name,
        status=job.status if job.status in _JOB_STATUSES else JobStatus.BROKEN.value,
        recipe=builds.RECIPE if job.build else RECIPE,
        steps=[steps[number] for number in sorted(steps)],
    )


def _first_told(other: Mentioned) -> object:
    return min(known for _, _, known in other.steps.values())
