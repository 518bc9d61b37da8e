"""Starve: give up queued jobs that would hold their flights up unreasonably."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights
from lab.db import session as db
from lab.db.starvation import waiting_flights
from lab.flights.starvation import starved
from lab.flights.status import JobStatus
from lab.services.settle import close_if_done


def starve_jobs(session: Session, lab: Lab) -> int:
    """Do what the rule says (see `lab.flights.starvation`); returns how many jobs were given up."""
    rule, now = lab.starvation, lab.clock()
    count = 0
    for flight, wait in waiting_flights(session, now, rule.done_share).items() if rule.factor > 0 else ():
        given_up = starved(wait, now.timestamp(), rule)
        for job, reason in sorted(given_up.items()):
            if flights.set_job_status(
                session, flight, job, current=JobStatus.QUEUED, to=JobStatus.STARVED, reason=reason
            ):
                data = {"job": job, "status": JobStatus.STARVED.value}
                flights.add_event(session, kind="job", now=now, flight=flight, data=data)
                count += 1
        if given_up:
            close_if_done(session, lab, flight)
    if count:
        db.after_commit(session, lab.bell.ring)
    return count
