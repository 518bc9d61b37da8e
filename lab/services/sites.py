"""Sites: shut the one that does not answer, ask it now and then, and open it again; the others notice nothing.

All that a site is ever asked goes through the broker, and its answer is a row.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, processes
from lab.db import session as db
from lab.db import sites as rows
from lab.hosts.breaker import Breaker, BreakerPolicy, answer, fail, wait

log = logging.getLogger(__name__)

POLICY = BreakerPolicy()

LOOK_EVERY_S = 1.0


def note_silence(session: Session, lab: Lab, site: str, reason: str) -> None:
    """Nobody at a site took up what it was given."""
    now = lab.clock().timestamp()
    before, after = rows.change_breaker(session, site, lambda breaker: fail(breaker, now, reason, POLICY))
    _tell(session, lab, site, before, after)


def note_answer(session: Session, lab: Lab, site: str) -> None:
    """A worker of a site has heard a message. Costs one look, and no lock, when all was well before."""
    now = lab.clock().timestamp()
    breaker = rows.find_breaker(session, site)
    if answer(breaker, now) != breaker:
        before, after = rows.change_breaker(session, site, lambda breaker: answer(breaker, now))
        _tell(session, lab, site, before, after)


def watch_sites(lab: Lab, stop: threading.Event) -> None:
    """Ask the sites that are shut, until `stop` is set; for the leader to run beside its planning."""
    while not stop.wait(LOOK_EVERY_S):
        try:
            ask_sites(lab)
        except Exception:
            log.exception("sites could not be looked after; trying again")
            stop.wait(LOOK_EVERY_S)


def ask_sites(lab: Lab) -> list[str]:
    """Look at the sites that are shut, and ask those whose turn it is; returns these."""
    with lab.reads() as session:
        shut = rows.shut_sites(session)
        living = processes.living_sites(session, lab.clock()) if shut else set()
    return [site for site in shut if _ask(lab, site, alive=site in living)]


def _ask(lab: Lab, site: str, *, alive: bool) -> bool:
    now, asked = lab.clock().timestamp(), []

    def look(breaker: Breaker) -> Breaker:
        waited, probe = wait(breaker, now, POLICY, alive=alive)
        if probe:
            asked.append(site)
        return waited

    with lab.sessions.begin() as session:
        rows.change_breaker(session, site, look)
        if asked:
            db.after_commit(session, partial(lab.dispatch.ask_site, site))
    return bool(asked)


def _tell(session: Session, lab: Lab, site: str, before: Breaker, after: Breaker) -> None:
    if before.lets_through == after.lets_through:
        return
    log.warning("site %s: %s %s", site, after.state.value, after.reason)
    data = {"site": site, "state": after.state.value}
    flights.add_event(session, kind="site", now=lab.clock(), data=data)
    db.after_commit(session, lab.bell.ring)
