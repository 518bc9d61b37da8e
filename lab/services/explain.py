"""Explain: write down why every queued job waits, and when and where it is expected to run.

Only what has changed enough to matter is written, the front of the queue first, a few rows in a transaction. A queue
of 10,000 whose places all move by one at every decision so costs a bounded part of the leader's time, and no decision
waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, waits
from lab.db.waits import JobKey
from lab.flights.model import Wait, Window
from lab.hosts.planner import Plan
from lab.services.mirror import Mirror

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
"""Rows of a transaction: on SQLite nobody else can write meanwhile."""

MOST_ROWS = 2000
"""Rows written before the queue is looked at anew."""

MATTERS = 0.1
"""A place in the queue or a time to wait that moved by less than this part of itself is not written again."""

SOON = timedelta(seconds=5)
FRONT = 20
"""The first places in the queue are always told exactly."""


class Explainer:
    """Knows what was written, so that it can tell what must be."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._written: dict[JobKey, Wait] | None = None

    def write(self, explained: Mapping[JobKey, Wait]) -> bool:
        """Bring what is written up to date, in short transactions; False when some is left for the next time."""
        try:
            for turn in range(0, MOST_ROWS, ROWS_AT_ONCE):
                begun = time.monotonic()
                with self._lab.sessions.begin() as session:
                    wrote = self.write_some(session, explained, ROWS_AT_ONCE)
                    if wrote and not turn:
                        flights.add_event(session, kind="plan", now=self._lab.clock())
                if wrote < ROWS_AT_ONCE:
                    return True
                time.sleep(min(1.0, 3 * (time.monotonic() - begun)))  # others want to write, too
        except BaseException:
            self._written = None  # nobody knows what of it is there
            raise
        return False

    def write_some(self, session: Session, explained: Mapping[JobKey, Wait], most: int) -> int:
        """Write at most `most` rows; returns how many were."""
        if self._written is None:
            self._written = waits.waits_written(session)
        now = self._lab.clock()
        written = self._written
        gone = list(islice((key for key in written if key not in explained), most))
        if gone:
            waits.drop_waits(session, gone)
        moved = [key for key, wait in explained.items() if key not in written or differs(written[key], wait, now)]
        moved.sort(key=lambda key: (explained[key].place is None, explained[key].place or 0))
        wanted = {key: explained[key] for key in moved[: most - len(gone)]}
        if wanted:
            waits.save_waits(session, wanted, now)
        for key in gone:
            del written[key]
        written |= wanted
        return len(gone) + len(wanted)


def differs(old: Wait, new: Wait, now: datetime) -> bool:
    """Whether somebody who was told the old would want to be told the new."""
    if (old.kind, dict(old.hosts)) != (new.kind, dict(new.hosts)) or (old.start is None) != (new.start is None):
        return True
    if old.place != new.place:
        if old.place is None or new.place is None or min(old.place, new.place) <= FRONT:
            return True
        if abs(old.place - new.place) > MATTERS * min(old.place, new.place):
            return True
    elif old.text != new.text:
        return True
    return _moved(old.start, new.start, now) or _moved(old.end, new.end, now)


def _moved(old: Window | None, new: Window | None, now: datetime) -> bool:
    if old is None or new is None:
        return old is not new
    return any(
        abs(after - before) > max(SOON, MATTERS * (after - now))
        for before, after in ((old.p50, new.p50), (old.p90, new.p90))
    )


def explained(mirror: Mirror, plan: Plan) -> dict[JobKey, Wait]:
    """Why each queued job waits, and when and where it will run."""
    found: dict[JobKey, Wait] = {}
    for waiting in plan.waiting:
        job = mirror.ready[waiting.request].queued.job
        found[job.flight, job.name] = Wait(kind="waiting_for_host", text=waiting.reason)
    for job, reason in mirror.blocked.values():
        found[job.flight, job.name] = Wait(kind="needs_job", text=reason)
    return found
