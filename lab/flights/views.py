"""Flights, jobs and hosts as plain data for JSON: the same words on the command line and in the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from lab.flights.coverage import coverage_of, unmet
from lab.flights.model import Attempt, Flight, FlightSummary, Job, StepResult, Wait, Window
from lab.hosts.health import HealthChange
from lab.hosts.model import Host


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None


def step_view(step: StepResult) -> dict[str, Any]:
    """One step."""
    return {
        "stepno": step.stepno,
        "testid": step.testid,
        "step": step.step,
        "status": step.status.value,
        "started": _time(step.started),
        "finished": _time(step.finished),
        "host": step.host,
        "reason": step.reason,
        "log": step.log,
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """One attempt with its steps and the evidence of those that did not pass."""
    return {
        "number": attempt.number,
        "status": attempt.status.value,
        "hosts": dict(attempt.hosts),
        "worker": attempt.worker,
        "started": _time(attempt.started),
        "finished": _time(attempt.finished),
        "reason": attempt.reason,
        "steps": [{**step_view(step), "evidence": dict(step.evidence)} for step in attempt.steps],
    }


def wait_view(wait: Wait) -> dict[str, Any]:
    """Why a job waits, and when and where it is expected to run."""
    return {
        "kind": wait.kind,
        "text": wait.text,
        "data": dict(wait.data),
        "place": wait.place,
        "start": window_view(wait.start),
        "end": window_view(wait.end),
        "hosts": dict(wait.hosts),
        "updated": _time(wait.updated),
    }


def window_view(window: Window | None) -> dict[str, Any] | None:
    """A moment that is not known exactly."""
    return {"p50": _time(window.p50), "p90": _time(window.p90)} if window else None


def job_summary(job: Job) -> dict[str, Any]:
    """A job as part of its flight: `steps` and `hosts` are those of the newest attempt, `attempts` their number."""
    last = job.last
    return {
        "name": job.name,
        "recipe": job.recipe,
        "status": job.status.value,
        "reason": job.reason,
        "waiting": wait_view(job.wait) if job.wait else None,
        "hosts": dict(last.hosts) if last else {},
        "attempts": len(job.attempts),
        "runvars": dict(job.values),
        "steps": [step_view(step) for step in last.steps] if last else [],
    }


def job_view(job: Job) -> dict[str, Any]:
    """A job with all its attempts."""
    return {
        "flight": job.flight,
        **job_summary(job),
        "queued": _time(job.queued),
        "outputs": sorted(runvar.name for runvar in job.runvars if runvar.synth),
        "history": [attempt_view(attempt) for attempt in job.attempts],
    }


def flight_summary(flight: Flight | FlightSummary) -> dict[str, Any]:
    """A flight without its jobs' steps."""
    return {
        "flight": flight.id,
        "branch": flight.branch,
        "status": flight.status.value,
        "blessing": flight.blessing.value,
        "intended": flight.intended.value,
        "submitter": flight.submitter,
        "tenant": flight.tenant,
        "note": flight.note,
        "started": _time(flight.started),
        "finished": _time(flight.finished),
        "counts": {status.value: count for status, count in flight.counts.items()},
    }


def flight_view(flight: Flight, demands: Mapping[str, Mapping[str, float]] = MappingProxyType({})) -> dict[str, Any]:
    """A flight with its jobs and their steps, and how much of each architecture came to a verdict."""
    return {
        **flight_summary(flight),
        "coverage": [
            {
                "arch": one.arch,
                "ran": one.ran,
                "left": one.left,
                "jobs": one.jobs,
                "demanded": one.demanded,
                "enough": one.enough,
            }
            for one in coverage_of(flight, demands)
        ],
        "unmet": list(unmet(flight, demands)),
        "jobs": [job_summary(job) for job in flight.jobs],
    }


def health_change_view(change: HealthChange) -> dict[str, Any]:
    """A change of a host's health."""
    return {
        "at": _time(change.at),
        "old": change.old.value,
        "new": change.new.value,
        "reason": change.reason,
        "actor": change.actor,
        "evidence": dict(change.evidence),
    }


def host_view(host: Host, *, holder: str | None = None, since: datetime | None = None) -> dict[str, Any]:
    """A host and who holds it."""
    return {
        "name": host.name,
        "arch": host.arch,
        "site": host.site,
        "flags": sorted(host.flags),
        "properties": dict(host.properties),
        "state": host.state.value,
        "health": host.health.value,
        "health_reason": host.health_reason,
        "holder": holder,
        "since": _time(since),
    }
