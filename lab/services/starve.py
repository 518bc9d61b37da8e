"""Starve: give up queued jobs that would hold their flights up unreasonably."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db.starvation import waiting_flights
from lab.flights.model import JobKey, Wait
from lab.flights.starvation import FOREVER, starved
from lab.flights.status import JobStatus
from lab.services.settle import close_if_done, give_up


def starve_jobs(session: Session, lab: Lab, expected: Mapping[JobKey, Wait]) -> int:
    """Do what the rule says (see `lab.flights.starvation`); returns how many jobs were given up.

    `expected` is when the queued jobs are expected to run, as the leader thinks now: what was written down before it
    began may be long out of date. A job that is not in it waits on.
    """
    rule, now = lab.starvation, lab.clock()
    if rule.factor <= 0:
        return 0
    ends: dict[int, dict[str, float]] = {}
    for (flight, job), wait in expected.items():
        ends.setdefault(flight, {})[job] = wait.end.p50.timestamp() if wait.end else FOREVER
    count = 0
    for flight, held_up in waiting_flights(session, ends, now, rule.done_share).items():
        given_up = starved(held_up, now.timestamp(), rule)
        for job, reason in sorted(given_up.items()):
            count += give_up(session, lab, flight, job, JobStatus.STARVED, reason)
        if given_up:
            close_if_done(session, lab, flight)
    return count
