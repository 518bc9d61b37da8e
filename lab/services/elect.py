"""Elect: of the processes that may lead one does, and the others stand by to take over."""

from __future__ import annotations

import logging
import threading

from lab.context import Lab
from lab.db.leadership import make_candidate
from lab.db.processes import LEADER, STANDBY
from lab.services.heartbeat import Heartbeat
from lab.services.lead import lead
from lab.services.sites import watch_sites

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How often whoever stands by tries to lead, and the leader makes sure that it still does."""


class Term:
    """A time of leading: the threads that do it, from the start until `end`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, args=(lab, self._over), name=name, daemon=True)
            for name, work in (("leader", lead), ("sites", watch_sites))
        ]
        for thread in self._threads:
            thread.start()

    def end(self, timeout_s: float | None = None) -> None:
        """Plan no more; returns when the plan that is being made is done."""
        self._over.set()
        self._lab.bell.ring()
        for thread in self._threads:
            thread.join(timeout_s)


def stand(lab: Lab, stop: threading.Event) -> None:
    """Stand for leader until `stop` is set: lead when nobody does, stand by while somebody does.

    Who dies is followed within about a second. Who loses the database stops planning and stands by again.
    """
    candidate = make_candidate(lab.sessions.kw["bind"], lab.settings.home)
    heart = Heartbeat(lab, STANDBY)
    term: Term | None = None
    log.info("standing by")
    try:
        while not stop.is_set():
            leads = candidate.leads()
            if leads and term is None:
                log.info("leading")
                term = Term(lab)
                heart.change(LEADER)
            elif not leads and term is not None:
                term.end()
                term = None
                log.info("standing by")
                heart.change(STANDBY)
            stop.wait(LOOK_EVERY_S)
    finally:
        if term is not None:
            term.end()
        candidate.close()
        heart.end()
        log.info("ended")
