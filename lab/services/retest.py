"""Retest: run the suspicious jobs of a flight again, on the builds that it made."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts
from lab.flights.retest import Retest, retest_specs
from lab.flights.status import Blessing
from lab.services.construct import construct_flight


def start_retests(
    session: Session, lab: Lab, flight: int, retests: Sequence[Retest], *, priority: int = 0
) -> list[int]:
    """Construct a flight, blessed *real-retest*, for each; returns their numbers. They are of the same branch."""
    whole = flights.load_flight(session, flight, evidence=False)
    flags = {view.host.name: view.host.flags for view in hosts.list_hosts(session)}
    return [
        construct_flight(
            session, lab, retest_specs(whole.jobs, retest, flags=flags), branch=whole.branch,
            intended=Blessing.REAL_RETEST, submitter=whole.submitter, tenant=whole.tenant, priority=priority,
            note=f"flight {flight}: {retest.note}"[:4096],
        )
        for retest in retests
    ]  # fmt: skip
