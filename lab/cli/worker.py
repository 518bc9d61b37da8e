"""`lab worker`: run jobs, and list who does."""

from __future__ import annotations

import os
import signal
import threading
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from lab.cli.opening import lab_option, open_lab, settings_with
from lab.cli.render import ago, json_option, output, print_json
from lab.db.processes import WORKER, ProcessView, list_processes
from lab.db.sites import shut_sites
from lab.errors import ConfigError
from lab.hosts.breaker import told
from lab.labfile import load_lab_file
from lab.services.heartbeat import Heartbeat


@click.group(invoke_without_command=True)
@click.option("--site", "sites", multiple=True, metavar="NAME", help="Run this site's jobs (default: all sites').")
@click.option("--lifeline", type=int, help="A file descriptor; when it closes, finish the running jobs and end.")
@lab_option
@click.pass_context
def worker(context: click.Context, sites: tuple[str, ...], lifeline: int | None, lab_file: Path | None) -> None:
    """Run jobs until told to stop (SIGTERM: after the running ones)."""
    if context.invoked_subcommand is not None:
        return
    if lab_file:
        os.environ["LAB_FILE"] = str(lab_file.absolute())
    from lab.broker import make_celery, queue_of
    from lab.tasks import get_lab

    settings = settings_with(lab_file)
    known = load_lab_file(settings.file).sites()
    for site in sites:
        if site not in known:
            raise ConfigError(f"there is no site {site!r} in this lab", hint=f"sites: {', '.join(known)}")
    if lifeline is not None:
        threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    heart = Heartbeat(get_lab(), WORKER, sites or known)
    try:
        make_celery(settings).worker_main(
            [
                "worker",
                "--pool=threads",
                f"--concurrency={settings.concurrency}",
                f"--queues={','.join(queue_of(site) for site in sites or known)}",
                "--loglevel=INFO",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )
    finally:
        heart.end()


@worker.command("list")
@json_option
def list_workers(*, as_json: bool) -> None:
    """The processes of this lab: which live, for which sites, and what they run."""
    lab = open_lab()
    now = lab.clock()
    with lab.reads() as session:
        found = list_processes(session)
        shut = shut_sites(session)
    if as_json:
        print_json([_view(view, now) for view in found])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("process", "is", "sites", "seen", "version", "started", "runs"):
        table.add_column(column)
    for view in found:
        seen = "✓ alive" if view.alive(now) else f"⚠ {ago(view.seen, now)}"
        started = ago(view.started, now)
        table.add_row(view.name, view.kind, " ".join(view.sites), seen, view.version, started, " ".join(view.jobs))
    output().print(table)
    for name, breaker in shut.items():
        output().print(f"⚠ {told(name, breaker)}", markup=False)


def _view(view: ProcessView, now: datetime) -> dict[str, object]:
    return {
        "name": view.name,
        "kind": view.kind,
        "sites": list(view.sites),
        "alive": view.alive(now),
        "seen": view.seen.isoformat(),
        "started": view.started.isoformat(),
        "version": view.version,
        "jobs": list(view.jobs),
    }


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
