"""`lab serve` and `lab leader`: the lab as a service."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
from pathlib import Path

import click

from lab.cli.engine import Engine
from lab.cli.opening import lab_option, open_working_lab
from lab.cli.render import output
from lab.errors import ConfigError
from lab.services.elect import stand


@click.command()
@click.option("--host", "address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--no-engine", is_flag=True, help="Only the web, as always with LAB_BROKER_URL: the rest runs elsewhere.")
@lab_option
def serve(address: str, port: int, lab_file: Path | None, *, no_engine: bool) -> None:
    """Show the lab in the browser, and run the flights that are submitted."""
    import uvicorn

    from web.app import Server, create_app

    listening = _listen(address, port)
    lab = open_working_lab(lab_file)
    server = Server(uvicorn.Config(create_app(lab), log_level="warning", timeout_graceful_shutdown=3))
    output().print(f"Flightline is at http://{address}:{port}/  (Ctrl-C ends)")
    if no_engine:
        server.run(sockets=[listening])
        return
    with Engine(lab) as engine:
        stop = threading.Event()
        keeper = threading.Thread(target=_keep, args=(engine, stop), name="keeper", daemon=True)
        keeper.start()
        try:
            server.run(sockets=[listening])
        finally:
            stop.set()
            keeper.join()


def _keep(engine: Engine, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        engine.keep()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {address} is in use", hint="choose another one with --port") from error
        raise ConfigError(f"cannot listen on {address}:{port}: {error.strerror}") from error
    return listening


@click.command()
@lab_option
def leader(lab_file: Path | None) -> None:
    """Decide which job runs where, until told to stop.

    Several may run, on one machine or many: one leads, the others stand by and take over when it dies.
    """
    lab = open_working_lab(lab_file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    stand(lab, stop)
