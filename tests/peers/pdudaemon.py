"""pdudaemon itself, with an outlet that runs a command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port

from peers.machine import SwitchedMachine

PDU, PORT = "rack1", 3


@contextmanager
def pdudaemon(folder: Path, machine: SwitchedMachine) -> Iterator[str]:
    """A pdudaemon with one PDU, whose outlets all switch the machine; its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log, config = free_port(), folder / "log", folder / "pdudaemon.conf"
    outlet = {name: f"{machine.program} %s {word}" for name, word in (("cmd_on", "on"), ("cmd_off", "off"))}
    daemon = {"hostname": "127.0.0.1", "port": port, "logging_level": "INFO", "listener": "http"}
    config.write_text(json.dumps({"daemon": daemon, "pdus": {PDU: {"driver": "localcmdline", **outlet}}}))
    with log.open("wb") as output:
        running = subprocess.Popen(
            [Path(sys.executable).with_name("pdudaemon"), "--conf", str(config), "--logfile", str(folder / "own-log")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 20
        while True:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except urllib.error.HTTPError as error:  # it answers, and knows no such page
                error.close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        running.terminate()
        running.wait(10)
