"""Celery tasks: take ids, call one service. A task delivered twice, late or never does no harm."""

from __future__ import annotations

import contextlib
import functools

from celery import shared_task
from celery.signals import worker_init

from lab.bootstrap import bootstrap
from lab.context import Lab
from lab.errors import LabError
from lab.services import clean_host as cleaning
from lab.services import run_job as running
from lab.services import sites
from lab.settings import read_settings


@functools.cache
def get_lab() -> Lab:
    """This worker's lab, built at its first task."""
    return bootstrap(read_settings())


@worker_init.connect  # type: ignore[untyped-decorator]
def _get_ready(**_kwargs: object) -> None:
    """Build the lab before the first message: a job should not wait for it. What is wrong is told by the first task."""
    with contextlib.suppress(LabError):
        get_lab()


@shared_task(name="lab.run_job")  # type: ignore[untyped-decorator]
def run_job(attempt: int, token: str) -> None:
    """Run an attempt, if it is still to be had."""
    running.run_job(get_lab(), attempt, token)


@shared_task(name="lab.clean_host")  # type: ignore[untyped-decorator]
def clean_host(host: str) -> None:
    """Power off and free a host in cleaning."""
    cleaning.clean_host(get_lab(), host)


@shared_task(name="lab.ask_site")  # type: ignore[untyped-decorator]
def ask_site(site: str) -> None:
    """Answer for a site that was silent."""
    lab = get_lab()
    with lab.sessions.begin() as session:
        sites.note_answer(session, lab, site)
