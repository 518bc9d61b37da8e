"""The processes of a lab under faults: `lab leader`, `lab worker`, `lab serve`, and the people who use it."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from factories import a_host, make_lab

import lab.bootstrap
import lab.services.lead
from faults import points, workload
from faults.machines import Machines
from lab.broker import CeleryDispatch
from lab.context import Lab
from lab.hosts.health import Rules
from lab.settings import Settings, read_settings

# Loaded before the processes fork from their server, so that a new one costs a moment and not two seconds.
import celery.bin.worker  # noqa: F401  isort: skip
import lab.cli
import lab.tasks

import web.app  # noqa: F401  isort: skip

NEVER_QUARANTINE = Rules(in_a_row=10_000, outlier_p=0.0)
"""Machines are killed on purpose here."""

REMIND_S = 2.0
"""The leader's safety net for lost messages, ten seconds otherwise: nobody wants to wait for it two hundred times."""


def open_lab(settings: Settings, reach: points.Reach) -> Lab:
    """The lab of `settings` with machines that are processes, and each change of its state reported."""
    made = make_lab(settings.database, settings.home, [a_host(name) for name in workload.HOSTS])
    engine = made.sessions.kw["bind"]
    points.watch(engine, reach)
    return replace(
        made,
        settings=settings,
        machines=Machines(workload.HOSTS, settings.home / "machines", reach),
        bell=lab.bootstrap.make_bell(settings, engine),
        dispatch=CeleryDispatch(settings, made.reads),
        clock=lab.bootstrap.now,
        health_rules=NEVER_QUARANTINE,
    )


def run(role: str, command: tuple[str, ...], environment: Mapping[str, str], driver: str, log: str) -> None:
    """Become the process `role`: the command line `lab COMMAND`, or the people for an empty one."""
    os.environ.update(environment)
    os.setsid()
    faulthandler.register(signal.SIGUSR1)  # who hangs can be asked where
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    workload.declare()
    lab.services.lead.LONGEST_WAIT_S = REMIND_S
    reach = points.Driver(driver, role).reach
    lab.bootstrap.bootstrap = partial(open_lab, reach=reach)  # type: ignore[assignment]
    for module in (sys.modules["lab.tasks"], sys.modules["lab.cli.opening"]):
        module.bootstrap = lab.bootstrap.bootstrap  # type: ignore[attr-defined]
    if command:
        from lab.cli import main

        main(list(command))
        return
    settings = read_settings()
    workload.people(open_lab(settings, reach), Path(settings.home / "stop"), seed=os.getpid())
