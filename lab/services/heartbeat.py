"""Heartbeat: a process shows in the database that it lives."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Collection
from importlib import metadata

from sqlalchemy.exc import SQLAlchemyError

from lab.context import Lab
from lab.db import processes

log = logging.getLogger(__name__)


def process_name() -> str:
    """Who this process is, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Heartbeat:
    """Shows that this process lives, from its making until `end`. It never fails: a database may be away."""

    def __init__(self, lab: Lab, kind: str, sites: Collection[str] = ()) -> None:
        self._lab, self._kind, self._sites = lab, kind, sites
        self._started = lab.clock()
        self._stop, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The process ends as it should, and is not remembered."""
        self._stop.set()
        self._changed.set()
        self._thread.join(processes.BEAT_S)
        try:
            with self._lab.sessions.begin() as session:
                processes.forget_process(session, process_name())
        except SQLAlchemyError:
            log.warning("the database is away; this process will be remembered for a while")

    def change(self, kind: str) -> None:
        """It is something else from now on."""
        self._kind = kind
        self._changed.set()

    def _beat(self) -> None:
        now = self._lab.clock()
        with self._lab.sessions.begin() as session:
            processes.see_process(
                session,
                process_name(),
                kind=self._kind,
                sites=self._sites,
                version=metadata.version("flightline"),
                started=self._started,
                now=now,
            )

    def _keep(self) -> None:
        silent = False
        while not self._stop.is_set():
            try:
                self._beat()
                silent = False
            except SQLAlchemyError as error:
                if not silent:
                    log.warning("no heartbeat: %s", str(getattr(error, "orig", error)).strip().partition("\n")[0])
                silent = True
            self._changed.wait(processes.BEAT_S)
            self._changed.clear()
