"""Lead: the loop of the one leader. It has no tick: it wakes when somebody rings, or when a hold runs out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, hosts
from lab.db.terms import DeposedError, begin_term, check_term
from lab.services.begin_leases import begin_leases, next_lease_change
from lab.services.beside import Beside
from lab.services.bisect_step import step_bisections
from lab.services.clocks import ClockWatch
from lab.services.expire import expire_leases
from lab.services.explain import Explaining
from lab.services.gate_step import step_gates
from lab.services.schedule import CLAIM_S, Scheduler
from lab.services.send_mails import send_mails
from lab.services.settle import close_if_done, reap
from lab.services.starve import starve_jobs
from lab.services.tend_hosts import tend_hosts

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 10.0
"""A safety net: lost rings and lost messages cost at most this long."""

DEPOSED_S = 1.0
"""Within so long whoever has lost the lock notices."""

STARVE_S = 60.0
"""Between two looks for jobs to give up: a matter of hours."""

RELOAD_S = 300.0
"""A safety net: everything is read anew after so long, or after fifty times what reading takes if that is longer."""


def lead(lab: Lab, stop: threading.Event) -> None:
    """Plan until `stop` is set (ring the bell after setting it). Start from the database alone, at any moment.

    Each transaction is one of our term: once another leader has begun its own, ours write nothing.
    """
    scheduler: Scheduler | None = None
    term = 0
    reload_at = remind_at = tend_at = starve_at = 0.0
    clocks = ClockWatch(grace_s=max(CLAIM_S, lab.settings.lease_s))
    explaining = Explaining(lab)
    beside = [Beside(lab, "bisect", step_bisections), Beside(lab, "gate", step_gates), Beside(lab, "mail", send_mails)]
    wanted: dict[str, str] = {}
    quiet = True
    while not stop.is_set():
        pause = LONGEST_WAIT_S
        try:
            if scheduler is None:
                with lab.sessions.begin() as session:
                    term = begin_term(session)
            with _in_term(lab, term) as session:
                if scheduler is None or time.monotonic() > reload_at:
                    scheduler, took = _begin(session, lab)
                    reload_at = time.monotonic() + max(RELOAD_S, 50 * took)
                    explaining.forget()
                patience = _judge_holds(session, lab, clocks)
                expire_leases(session, lab)
                begin_leases(session, lab, wanted=wanted)
                more = scheduler.follow(session)
                scheduler.look(session)
                before, wanted = wanted, scheduler.wanted()
                if (expiry := flights.next_expiry(session)) is not None:
                    pause = min(pause, max(0.1, patience, (expiry - lab.clock()).total_seconds() + 0.05))
                if (change := next_lease_change(session, lab)) is not None:
                    pause = min(pause, max(0.0, (change - lab.clock()).total_seconds()))
            if time.monotonic() > tend_at:
                with _in_term(lab, term) as session:
                    tend_hosts(session, lab)
                tend_at = time.monotonic() + LONGEST_WAIT_S
            if explaining.expected is not None and time.monotonic() > starve_at:
                with _in_term(lab, term) as session:
                    starve_jobs(session, lab, explaining.expected)
                starve_at = time.monotonic() + STARVE_S
            explain_in = explaining.offer(scheduler.snapshot, news=scheduler.mirror.news)
            pause = min(pause, explain_in, *(again for one in beside if (again := one.offer()) is not None))
            pause = 0.0 if more or wanted != before else pause
            if quiet and time.monotonic() > remind_at:
                remind(lab)
                remind_at = time.monotonic() + LONGEST_WAIT_S / 2
        except DeposedError as error:
            log.warning("somebody else leads: %s", error)
            scheduler, pause = None, 2 * DEPOSED_S  # by then the lock has told us to stop; or it was a mistake
        except Exception:
            # The database or the broker is away, or somebody was quicker: nothing that another look would not settle,
            # and there is nobody else to lead. What was remembered may not be what was written.
            log.exception("the leader failed; trying again")
            scheduler, pause = None, 1.0
        if scheduler is None:
            stop.wait(pause)  # no ring makes this quicker
        quiet = not lab.bell.wait(0.0 if scheduler is None else pause)
    explaining.end()
    for one in beside:
        one.end()


@contextmanager
def _in_term(lab: Lab, term: int) -> Iterator[Session]:
    """A transaction of our term; `DeposedError` when that is over."""
    with lab.sessions.begin() as session:
        check_term(session, term)
        yield session


def _judge_holds(session: Session, lab: Lab, clocks: ClockWatch) -> float:
    """End the holds that are over; returns for how many seconds that has to wait because the clock jumped."""
    seconds = time.monotonic()
    jump = clocks.look(lab.clock(), seconds)
    if jump:
        log.warning("the clock jumped by %.0f s", jump.total_seconds())
    longest = timedelta(seconds=max(CLAIM_S, lab.settings.lease_s))
    flights.cut_holds(session, lab.clock() + longest, beyond=lab.clock() + 2 * longest)
    patience = clocks.patience_s(seconds)
    if not patience:
        reap(session, lab)
    return patience


def _begin(session: Session, lab: Lab) -> tuple[Scheduler, float]:
    """A scheduler that knows everything, and how many seconds that took."""
    begun = time.monotonic()
    for flight in flights.unfinished_flights(session):
        close_if_done(session, lab, flight)
    scheduler = Scheduler(lab)
    scheduler.load(session)
    return scheduler, time.monotonic() - begun


def remind(lab: Lab) -> None:
    """Send again what a worker should have heard long ago: messages may get lost, rows do not."""
    late = lab.clock() - timedelta(seconds=LONGEST_WAIT_S / 2)
    with lab.reads() as session:
        waiting = flights.unclaimed_attempts(session, before=late)
        dirty = hosts.cleaning_hosts(session)
    for attempt, token in waiting:
        lab.dispatch.run_job(attempt, token)
    for host in dirty:
        lab.dispatch.clean_host(host)
