"""The embedded engine: the leader and one worker, run by whichever command needs them first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import TracebackType

from lab.context import Lab
from lab.db import hosts
from lab.db.leadership import make_candidate
from lab.db.processes import LEADER
from lab.errors import InfraError
from lab.services.elect import LOOK_EVERY_S, Term
from lab.services.heartbeat import Heartbeat

WORKER_STOP_S = 120.0


class Engine:
    """Runs the lab while it is open, unless another process already does.

    Call `keep()` now and then: when the process that ran the lab has ended, this one takes over; when its own worker
    died, it starts another one.

    With a broker of its own (`LAB_BROKER_URL`) a lab has leaders and workers of its own, too: then this runs nothing.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._embedded = not lab.settings.broker_url
        self._candidate = make_candidate(lab.sessions.kw["bind"], lab.settings.home)
        self._term: Term | None = None
        self._heart: Heartbeat | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._deaths: list[float] = []
        self._next = 0.0

    def __enter__(self) -> Engine:
        self.keep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._term is not None:
            self._term.end(timeout_s=10)
        self._stop_worker()
        if self._heart is not None:
            self._heart.end()
        self._candidate.close()

    def keep(self) -> None:
        """Make sure that somebody leads and that our worker lives; cheap, at most twice a second."""
        if not self._embedded or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_EVERY_S
        leads = self._candidate.leads()
        if leads and self._term is None:
            self._heart = self._heart or Heartbeat(self._lab, LEADER)
            self._term = Term(self._lab)
        elif not leads and self._term is not None:
            self._term.end()
            self._term = None
        if not leads:
            return
        if self._worker is None:
            self._start_worker()
        elif self._worker.poll() is not None:
            self._deaths = [death for death in self._deaths if death > time.monotonic() - 60] + [time.monotonic()]
            if len(self._deaths) > 3:
                log = self._lab.settings.home / "worker.log"
                raise InfraError("the worker dies again and again", hint=f"read {log}")
            self._start_worker()

    def _start_worker(self) -> None:
        """Start a worker that ends, its jobs done, when this process is gone (its lifeline closes)."""
        if self._lifeline is not None:
            os.close(self._lifeline)
        reading, self._lifeline = os.pipe()
        settings = self._lab.settings
        environment = {
            **os.environ,
            "LAB_HOME": str(settings.home),
            "LAB_FILE": str(settings.file),
            "LAB_MANIFESTS": str(settings.manifests),
        }
        with (settings.home / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "lab.cli", "worker", "--lifeline", str(reading)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[reading],
                start_new_session=True,  # a Ctrl-C is for the command; it tells the worker what to do
                env=environment,
            )
        os.close(reading)

    def _stop_worker(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._worker is not None:
            try:
                self._worker.wait(WORKER_STOP_S)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()

    def wait_until_clean(self, timeout_s: float) -> bool:
        """Wait until no host is being cleaned; False when that takes longer than `timeout_s`."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with self._lab.reads() as session:
                if not hosts.cleaning_hosts(session):
                    return True
            self.keep()
            time.sleep(0.1)
        return False
