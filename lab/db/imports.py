"""Flights of another lab, as rows: they have ended, and no host of ours ran them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from lab.db.tables import AttemptRow, FlightRevisionRow, FlightRow, JobRow, StepRow
from lab.errors import ConfigError
from lab.flights.past_results import StepRun

SUBMITTER: Final = "import"
RECIPE: Final = "imported"


@dataclass(frozen=True, kw_only=True)
class ImportedJob:
    """A job as another lab told it; of its `steps` (passed ones among them) each has a number of its own."""

    name: str
    status: str
    recipe: str = RECIPE
    steps: Sequence[StepRun] = ()


def add_imported_flight(
    session: Session,
    flight: int,
    *,
    branch: str,
    blessing: str,
    ended: datetime,
    versions: Mapping[str, str],
    jobs: Sequence[ImportedJob],
    note: str,
) -> None:
    """Insert a flight under its own number; `ConfigError` when this lab has one of that number."""
    if session.get(FlightRow, flight) is not None:
        raise ConfigError(
            f"this lab has a flight {flight} already", hint="import into a lab of its own: set LAB_HOME to a new folder"
        )
    session.add(
        FlightRow(
            id=flight, branch=branch, intended=blessing, blessing=blessing, started=ended, finished=ended,
            submitter=SUBMITTER, tenant=SUBMITTER, note=note,
            jobs=[
                JobRow(
                    name=job.name, position=position, recipe=job.recipe, status=job.status, reason="", priority=0,
                    queued=ended,
                )
                for position, job in enumerate(jobs)
            ],
        )
    )  # fmt: skip
    session.flush()
    session.add_all(
        FlightRevisionRow(flight=flight, tree=tree, revision=revision) for tree, revision in versions.items()
    )
    for job in jobs:
        session.add(
            AttemptRow(
                flight=flight, job=job.name, number=1, status=job.status, token="", worker=SUBMITTER, started=ended,
                until=ended, finished=ended, reason="",
                steps=[
                    StepRow(
                        stepno=step.stepno, testid=step.testid, step=step.testid, status=step.status, started=ended,
                        finished=ended, reason="", log="",
                    )
                    for step in job.steps
                ],
            )
        )  # fmt: skip
    session.flush()
