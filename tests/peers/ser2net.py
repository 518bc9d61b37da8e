"""A console server: ser2net, with a serial port that a test is the other end of (a pseudo terminal)."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers import free_port


@dataclass
class SerialPort:
    """The machine's end of the line, and the TCP port at which the console server has the other."""

    number: int
    port: int

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.number, data) :]

    def heard(self, size: int, within_s: float = 10.0) -> bytes:
        end, data = time.monotonic() + within_s, b""
        os.set_blocking(self.number, False)
        while len(data) < size and time.monotonic() < end:
            try:
                data += os.read(self.number, size - len(data))
            except BlockingIOError:
                time.sleep(0.02)
        os.set_blocking(self.number, True)
        return data


@contextmanager
def console_server(
    folder: Path, *, telnet: bool = False, port: int = 0, device: str = "", prefix: Sequence[str] = ()
) -> Iterator[SerialPort]:
    """A ser2net with one port, to a new line or to `device`. `prefix` is the beginning of its command line."""
    assert shutil.which("ser2net") or Path("/usr/sbin/ser2net").exists(), "apt install ser2net"
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    device = device or os.ttyname(theirs)
    accepter = f"{'telnet,' if telnet else ''}tcp,127.0.0.1,{port}"
    config = folder / "ser2net.yaml"
    config.write_text(
        f"connection: &con\n  accepter: {accepter}\n  connector: serialdev,{device},115200n81,local\n"
        "  options:\n    kickolduser: true\n"
    )
    program = shutil.which("ser2net") or "/usr/sbin/ser2net"
    with (folder / "log").open("wb") as output:
        running = subprocess.Popen(
            [*prefix, program, "-n", "-d", "-c", str(config), "-P", str(folder / "pid")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while True:
            assert running.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            if prefix:  # it cannot be seen from here; whoever connects too early tries again
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield SerialPort(ours, port)
    finally:
        running.terminate()
        running.wait(10)
        os.close(ours)
        os.close(theirs)
