"""Explain: write down why every queued job waits, and when and where it is expected to run.

Only what has changed enough to matter is written, the front of the queue first, a few rows in a transaction. A queue
of 10,000 whose places all move by one at every decision so costs a bounded part of the leader's time, and no decision
waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, waits
from lab.flights.model import JobKey, Wait, Window
from lab.flights.requests import BUILD_LANE
from lab.hosts.durations import Estimate
from lab.hosts.fair import FairQueue
from lab.hosts.model import HostState
from lab.hosts.projection import Projected, When, project
from lab.hosts.reasons import Reason, ReasonKind, reasons
from lab.hosts.request import Request
from lab.hosts.slots import Slots
from lab.services.mirror import CLEANING, Snapshot

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
"""Rows of a transaction: on SQLite nobody else can write meanwhile."""

MOST_ROWS = 4000
"""Rows written before the queue is looked at anew."""

REST = 9.0
"""After explaining, so many times what it cost of a processor passes before the next time: it takes a tenth of one."""

AT_MOST_EVERY_S = 1.0
AT_LEAST_EVERY_S = 30.0
"""What is expected moves on with the time, even when nothing happens."""

MATTERS = 0.1
"""A place in the queue or a time to wait that moved by less than this part of itself is not written again."""

SOON = timedelta(seconds=5)
FRONT = 20
"""The first places in the queue are always told exactly."""


class Explaining:
    """Explains beside the leader's work, in a thread of its own, when something has changed, and not too often."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._explainer = Explainer(lab)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._latest = 0.0
        self._news = True
        self.expected: Mapping[JobKey, Wait] | None = None
        """why each queued job waits, as of late; None: nobody has looked yet"""

    def offer(self, take: Callable[[], Snapshot], *, news: bool) -> float:
        """Explain what `take` gives if it is time to; returns in how many seconds it wants to be asked again."""
        self._news = self._news or news
        now = time.monotonic()
        due = self._next if self._news else max(self._next, self._latest + AT_LEAST_EVERY_S)
        if self._thread is not None and self._thread.is_alive():
            return AT_MOST_EVERY_S
        if now < due:
            return due - now
        self._news, self._latest = False, now
        self._thread = threading.Thread(target=self._explain, args=(take(),), name="explain", daemon=True)
        self._thread.start()
        return AT_MOST_EVERY_S

    def forget(self) -> None:
        """Look at what is written anew: a safety net, as everything is read anew now and then."""
        if self._thread is None or not self._thread.is_alive():
            self._explainer = Explainer(self._lab)
        self._news, self.expected = True, None

    def end(self) -> None:
        """Write nothing more: somebody else may lead by now."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _explain(self, snapshot: Snapshot) -> None:
        begun = time.thread_time()
        try:
            self.expected = explained(self._lab, snapshot)
            whole = self._explainer.write(self.expected, stop=self._stop)
            self._news = self._news or not whole
        except Exception:
            log.exception("why jobs wait was not written; trying again")
            self._news = True
        took = time.thread_time() - begun
        self._next = time.monotonic() + max(AT_MOST_EVERY_S, REST * took)


class Explainer:
    """Knows what was written, so that it can tell what must be."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._written: dict[JobKey, Wait] | None = None

    def write(self, wanted: Mapping[JobKey, Wait], *, stop: threading.Event, most: int = MOST_ROWS) -> bool:
        """Bring what is written up to date, in short transactions; False when some is left for the next time."""
        if self._written is None:
            with self._lab.reads() as session:
                self._written = waits.waits_written(session)
        gone, moved = self._to_do(self._written, wanted)
        keys, told = iter([*gone, *moved][:most]), False
        while not stop.is_set() and (some := list(islice(keys, ROWS_AT_ONCE))):
            begun = time.monotonic()
            try:
                with self._lab.sessions.begin() as session:
                    self._write(session, some, wanted, self._written)
                    if not told:
                        flights.add_event(session, kind="plan", now=self._lab.clock())
                told = True
            except BaseException:
                self._written = None  # nobody knows what of it is there
                raise
            stop.wait(min(1.0, 3 * (time.monotonic() - begun)))  # others want to write, too
        return len(gone) + len(moved) <= most

    def write_all(self, session: Session, wanted: Mapping[JobKey, Wait]) -> None:
        """Bring all that is written up to date in the caller's transaction."""
        written = waits.waits_written(session)
        gone, moved = self._to_do(written, wanted)
        self._write(session, [*gone, *moved], wanted, written)

    def _to_do(
        self, written: Mapping[JobKey, Wait], wanted: Mapping[JobKey, Wait]
    ) -> tuple[list[JobKey], list[JobKey]]:
        now = self._lab.clock()
        gone = [key for key in written if key not in wanted]
        moved = [key for key, wait in wanted.items() if key not in written or differs(written[key], wait, now)]
        moved.sort(key=lambda key: (wanted[key].place is None, wanted[key].place or 0))
        return gone, moved

    def _write(
        self, session: Session, keys: Sequence[JobKey], wanted: Mapping[JobKey, Wait], written: dict[JobKey, Wait]
    ) -> None:
        rows = iter(keys)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            if gone := [key for key in some if key not in wanted]:
                waits.drop_waits(session, gone)
            if moved := {key: wanted[key] for key in some if key in wanted}:
                waits.save_waits(session, moved, self._lab.clock())
            for key in gone:
                written.pop(key, None)
            written |= moved


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


def explained(lab: Lab, snapshot: Snapshot) -> dict[JobKey, Wait]:
    """Why each queued job waits, and when and where it will run."""
    now = lab.clock()
    turns = _turns(lab, snapshot, now.timestamp())
    back, lane, ends = _expected_back(snapshot, now)
    expected = project(
        now.timestamp(),
        [*turns, *(one.request for one in snapshot.blocked)],
        snapshot.hosts,
        back=back,
        blocks=snapshot.blocks,
        limit=lab.limit,
        lanes={BUILD_LANE: lane} if lane else {},
        length=_lengths(snapshot),
        needs={one.request.id: one.needs for one in snapshot.blocked},
        ends=ends,
    )
    why = reasons(
        now.timestamp(),
        turns,
        sorted(snapshot.hosts, key=lambda host: host.name),
        possible=expected.keys(),
        for_place={waiting.request: waiting.reason for waiting in snapshot.plan.waiting if waiting.for_place},
        blocks=snapshot.blocks,
        fits=Slots(lab.limit, snapshot.hosts).possible,
    )
    found: dict[JobKey, Wait] = {}
    for request in turns:
        job = snapshot.ready[request.id].queued.job
        found[job.flight, job.name] = _wait(why[request.id], expected.get(request.id))
    for one in snapshot.blocked:
        job = one.queued.job
        reason = Reason(kind=ReasonKind.NEEDS_JOB, text=one.reason, data={"needs": sorted(one.needs)})
        found[job.flight, job.name] = replace(_wait(reason, expected.get(job.id)), place=None)
    return found


def _turns(lab: Lab, snapshot: Snapshot, now: float) -> list[Request]:
    """The queue in the order in which it is served, with what is known of durations by now."""
    queue = FairQueue(shares=lab.scheduler.shares, ageing_s=lab.scheduler.ageing_s)
    for waiting in snapshot.ready.values():
        job = waiting.queued.job
        queue.put(replace(waiting.request, estimate=snapshot.history.expected(job.name, job.recipe)))
    return list(queue.in_turn(snapshot.used, now=now))


def _lengths(snapshot: Snapshot) -> Callable[[Request, Sequence[str]], Estimate]:
    """How long a request takes on certain hosts: what its job took on hosts of the first one's class."""
    jobs = {one.request.id: one.queued.job for one in snapshot.ready.values()}
    jobs |= {one.request.id: one.queued.job for one in snapshot.blocked}

    def length(request: Request, chosen: Sequence[str]) -> Estimate:
        job = jobs[request.id]
        return snapshot.history.expected(job.name, job.recipe, snapshot.class_of(chosen))

    return length


def _expected_back(snapshot: Snapshot, now: datetime) -> tuple[dict[str, When], When | None, dict[str, When]]:
    """When each host that somebody has is expected back, the lane of builds is free, and each running job ends."""
    seconds = now.timestamp()
    back: dict[str, When] = {}
    ends: dict[str, When] = {}
    lane: When | None = None
    for host in snapshot.hosts:
        if host.state is HostState.CLEANING:
            back[host.name] = _after(seconds, CLEANING)
    for one in snapshot.running:
        place = snapshot.class_of(one.hosts.values())
        left = snapshot.history.left(one.job, one.recipe, place, seconds - one.started.timestamp())
        when = _after(seconds, left)
        back |= dict.fromkeys(one.hosts.values(), when)
        ends[f"{one.flight}.{one.job}"] = when
        if not one.hosts:
            lane = when
    return back, lane, ends


def _after(seconds: float, length: Estimate) -> When:
    return When(p50=seconds + length.p50_s, p90=seconds + length.p90_s)


def _wait(reason: Reason, expected: Projected | None) -> Wait:
    return Wait(
        kind=reason.kind.value,
        text=reason.text,
        data=reason.data,
        place=expected.place if expected else None,
        start=_window(expected.start) if expected else None,
        end=_window(expected.end) if expected else None,
        hosts=expected.hosts if expected else {},
    )


def _window(when: When) -> Window:
    return Window(p50=datetime.fromtimestamp(when.p50, UTC), p90=datetime.fromtimestamp(when.p90, UTC))
