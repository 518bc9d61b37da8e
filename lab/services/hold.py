"""The hold on an attempt: renewed from a thread, and told to every wait by the guard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from lab.context import Lab
from lab.db import flights
from lab.errors import Aborted
from lab.flights.status import JobStatus


class Hold:
    """Keeps an attempt for this worker while the context is open, a few times per lease time.

    `lost` becomes true when the token no longer holds: somebody else settled the attempt, and nothing may be written
    or switched any more. `aborted` becomes true when a person stopped the flight: then the worker clears up.
    """

    def __init__(self, lab: Lab, *, attempt: int, token: str, flight: int, job: str) -> None:
        self._lab, self._attempt, self._token, self._flight, self._job = lab, attempt, token, flight, job
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"hold-{flight}.{job}", daemon=True)
        self.lost = False
        self.aborted = False

    def __enter__(self) -> Hold:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def guard(self) -> None:
        """Raise `Aborted` when the work has become pointless."""
        if self.lost:
            raise Aborted("this worker no longer holds the job")
        if self.aborted:
            raise Aborted("the flight was aborted")

    def _keep(self) -> None:
        lease = self._lab.settings.lease_s
        renewed = self._lab.clock()
        while not self._stop.wait(min(1.0, lease / 5)):
            try:
                self._look(lease)
                renewed = self._lab.clock()
            except SQLAlchemyError:
                # The database may be back before the lease is over; once it is over, somebody else may act.
                if self._lab.clock() - renewed > timedelta(seconds=lease):
                    self.lost = True
                    return

    def _look(self, lease: float) -> None:
        until = self._lab.clock() + timedelta(seconds=lease)
        with self._lab.sessions.begin() as session:
            self.lost = not flights.renew_attempt(session, self._attempt, self._token, until=until)
            self.aborted = flights.job_status(session, self._flight, self._job) is JobStatus.ABORTED


def either(*guards: Callable[[], None]) -> Callable[[], None]:
    """One guard out of several."""

    def guard() -> None:
        for each in guards:
            each()

    return guard
