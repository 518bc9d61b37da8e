"""A file of OSSTest's reports: JSON, one flight a line."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.errors import ConfigError
from lab.flights.osstest_report import ReportedFailure, ReportedFlight, Reports
from lab.flights.verdict import Kind

_LARGEST: Final = 256 << 20
_KINDS: Final = {kind.value: kind for kind in Kind} | {"heisenbug_pass_in": Kind.HEISENBUG}

# Names may hold whatever OSSTest's did (`guest-start/debian.repeat`, `<job status>`), but no control characters.
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,300}$")]
_Number = Annotated[int, Field(ge=0, le=1 << 40)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FailureRow(_Row):
    """An entry of `failures`."""

    section: Literal["blocking", "intermittent", "allowable", "nonblocking"]
    job: _Text
    testid: _Text
    status: _Text
    kind: Literal[
        "regression", "like", "failed_in", "status_in", "blocked_in", "starved_in", "baseline_untested", "never_pass",
        "na", "heisenbug_pass_in", "heisenbug", "job_status", "unfinished", "allowable",
    ]  # fmt: skip
    note: _Text | None = ""
    stepno: _Number | None = None
    ref_flight: _Number | None = None
    seen_in: _Number | None = None


class FlightRow(_Row):
    """A line: what of it is needed here. Further keys are left alone."""

    flight: _Number
    branch: _Text
    date: datetime
    blessing: _Text = "real"
    headline: _Text = ""
    versions_this: dict[_Text, _Text] | None
    versions_baseline: dict[_Text, _Text] | None = None
    baseline_flight: _Number | None = None
    retest_flights: tuple[_Number, ...] = ()
    jobs: dict[_Text, _Text]
    failures: tuple[FailureRow, ...]


def read_reports(path: Path) -> Reports:
    """The reports of a file. Raises `ConfigError` that names the line and the field that is wrong; a file without a
    report is an error, too.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{path}: is larger than {_LARGEST >> 20} MiB", hint="split it")
        lines = path.read_bytes().decode().splitlines()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file", hint="name a file of reports, a JSON object a line"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    found = [_report(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ConfigError(f"{path}: has no report in it", hint="it must have a JSON object a line, each a flight")
    try:
        return Reports(found)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _report(path: Path, number: int, line: str) -> ReportedFlight:
    where = f"{path}: line {number}"
    try:
        row = FlightRow.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: is not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: is nested too deeply") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise ConfigError(
            f"{where}: {field}: {first['msg'].lower()}", hint="correct the line, or leave it out"
        ) from error
    if row.date.tzinfo is None:
        raise ConfigError(f"{where}: date: has no time zone", hint="write it as 2024-10-18T13:33:08Z")
    return ReportedFlight(
        flight=row.flight,
        branch=row.branch,
        date=row.date,
        blessing=row.blessing,
        headline=row.headline,
        this=row.versions_this or {},
        that=row.versions_baseline or {},
        jobs=row.jobs,
        failures=tuple(
            ReportedFailure(
                section=one.section,
                job=one.job,
                testid=one.testid,
                status=one.status,
                kind=_KINDS[one.kind],
                note=one.note or "",
                stepno=one.stepno,
                ref_flight=one.ref_flight,
                seen_in=one.seen_in,
            )
            for one in row.failures
        ),
        baseline_flight=row.baseline_flight,
        retests=row.retest_flights,
    )
