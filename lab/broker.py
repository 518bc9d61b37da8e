"""The broker: a doorbell for workers. Which job a worker runs is decided by rows, not by messages."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from lab import folder_broker
from lab.db import flights, hosts
from lab.errors import LabBug
from lab.settings import Settings

log = logging.getLogger(__name__)

SEND_S = 5.0
"""How long the sender waits for the broker at a time."""

MESSAGE_LIFE_S = 30.0
"""A message that cannot be sent for so long is dropped: the leader rings again for whatever is still to be done."""

MOST_WAITING = 10_000
"""Messages that wait to be sent; more are dropped, the oldest first."""

LAST_WORDS_S = 3.0
"""How long a process that ends still tries to send."""


def queue_of(site: str) -> str:
    """The queue of a site: its workers hear it, and no others."""
    return f"site.{site}"


def make_celery(settings: Settings, *, sending: bool = False) -> Any:
    """The application for these settings: a folder as broker unless `LAB_BROKER_URL` names a real one.

    One for `sending` gives up soon, for its caller to decide; one that hears goes on for ever.
    """
    app = Celery("lab", include=["lab.tasks"])
    url = settings.broker_url or f"{folder_broker.SCHEME}://"
    app.conf.update(
        broker_url=url,
        broker_connection_timeout=SEND_S,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker outlives any absence of the broker
        broker_channel_error_retry=True,
        broker_heartbeat=20,
        task_default_queue=queue_of("default"),
        task_ignore_result=True,  # and no result backend: results are rows
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # a busy worker leaves messages to an idle one
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a job goes on; its row says who runs it
        worker_enable_remote_control=False,  # who may write to the broker may ring, and no more
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
    )
    app.conf.update(_transport(url, settings, sending=sending))
    return app


def _transport(url: str, settings: Settings, *, sending: bool) -> dict[str, Any]:
    match url.partition("://")[0]:
        case folder_broker.SCHEME:
            return {"task_acks_late": True, "broker_transport_options": _folder(settings)}
        case "redis" | "rediss" | "sentinel":
            return {"task_acks_late": True, "broker_transport_options": _redis(sending=sending)}
        case "amqp" | "amqps":
            # RabbitMQ closes the channel of a consumer that leaves a message unacknowledged for half an hour, and
            # jobs take longer. An early acknowledgement may lose a message, which costs ten seconds.
            options = {"read_timeout": SEND_S, "write_timeout": SEND_S, "confirm_publish": True} if sending else {}
            return {"task_acks_late": False, "broker_transport_options": options}
        case other:
            raise LabBug(f"the settings let a broker of kind {other!r} pass")


def _folder(settings: Settings) -> dict[str, Any]:
    folder = settings.home / "broker"
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
    }


def _redis(*, sending: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        # Redis delivers again what was not acknowledged for so long: longer than any job takes. What a dead worker had
        # taken comes much sooner, from the leader.
        "visibility_timeout": 7 * 86_400,
        "socket_keepalive": True,
        "socket_connect_timeout": SEND_S,
        "health_check_interval": 5,
    }
    if sending:
        options |= {"socket_timeout": SEND_S, "retry_on_timeout": False}
    return options


class CeleryDispatch:
    """Sends Celery messages from a thread of its own: whoever rings never waits for the broker.

    Each goes to the queue of the site that it is for, which `reads` tell. A message that waits is not kept twice. What
    cannot be sent is tried again for a while and then dropped.
    """

    def __init__(self, settings: Settings, reads: sessionmaker[Session]) -> None:
        self._settings, self._reads = settings, reads
        self._app: Any = None
        self._waiting: dict[tuple[str, tuple[Any, ...]], float] = {}
        self._changed = threading.Condition()
        self._sender: threading.Thread | None = None

    def run_job(self, attempt: int, token: str) -> None:
        """Wake a worker for an attempt."""
        self._put("lab.run_job", attempt, token)

    def clean_host(self, host: str) -> None:
        """Wake a worker to clean a host."""
        self._put("lab.clean_host", host)

    def ask_site(self, site: str) -> None:
        """Have a worker of a site answer."""
        self._put("lab.ask_site", site)

    def flush(self, timeout_s: float = LAST_WORDS_S) -> bool:
        """Wait until everything is sent or dropped; False when that takes longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _put(self, task: str, *args: Any) -> None:
        with self._changed:
            self._waiting.setdefault((task, args), time.monotonic() + MESSAGE_LIFE_S)
            if len(self._waiting) > MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_all, name="sender", daemon=True)
                self._sender.start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                message, expiry = next(iter(self._waiting.items()))
            sent = self._send(*message)
            with self._changed:
                if sent or time.monotonic() > expiry:
                    self._waiting.pop(message, None)
                    self._changed.notify_all()
                if not sent:
                    self._changed.wait(1.0)

    def _send(self, task: str, args: tuple[Any, ...]) -> bool:
        try:
            if self._app is None:
                self._app = make_celery(self._settings, sending=True)
            self._app.send_task(task, args=args, queue=queue_of(self._site(task, args[0])), retry=False)
        except (KombuError, OperationalError, OSError, SQLAlchemyError) as error:
            log.warning("%s%r was not sent: %s", task, args, str(error).strip() or repr(error.__cause__ or error))
            return False
        except Exception:
            # Nothing of a message may end the thread that sends all of them.
            log.exception("%s%r was not sent", task, args)
            return False
        return True

    def _site(self, task: str, subject: Any) -> str:
        with self._reads() as session:
            match task:
                case "lab.run_job":
                    return flights.site_of_attempt(session, subject)
                case "lab.clean_host":
                    return hosts.site_of_host(session, subject)
                case _:
                    return str(subject)
