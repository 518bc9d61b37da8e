"""The broker: a doorbell for workers. Which job a worker runs is decided by rows, not by messages."""

from __future__ import annotations

from typing import Any

from celery import Celery

from lab.settings import Settings

QUEUE = "lab"


def make_celery(settings: Settings) -> Any:
    """The application for these settings: a folder as broker unless `LAB_BROKER_URL` names a real one."""
    app = Celery("lab", include=["lab.tasks"])
    options: dict[str, Any] = {}
    url = settings.broker_url
    if not url:
        folder = settings.home / "broker"
        for name in ("messages", "control"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        url = "filesystem://"
        options = {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        }
    app.conf.update(
        broker_url=url,
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=10,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
    )
    return app


class CeleryDispatch:
    """Sends Celery messages; the application is made at the first one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Any = None

    def run_job(self, attempt: int, token: str) -> None:
        """Wake a worker for an attempt."""
        self._send("lab.run_job", attempt, token)

    def clean_host(self, host: str) -> None:
        """Wake a worker to clean a host."""
        self._send("lab.clean_host", host)

    def _send(self, task: str, *args: Any) -> None:
        if self._app is None:
            self._app = make_celery(self._settings)
        self._app.send_task(task, args=args)
