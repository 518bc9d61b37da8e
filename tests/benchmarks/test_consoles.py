"""A hundred consoles at 115200 baud at once: whether every byte is recorded, and what it costs.

CONSOLES_S=300 pytest tests/benchmarks/test_consoles.py -m benchmark -s
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from lab.hosts.drivers.console.keeper import drop_console, keep_console
from lab.hosts.drivers.machine import processes
from lab.machine_settings.console import ConsoleSettings
from lab.secrets import Secrets

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

CONSOLES = 100
SECONDS = float(os.environ.get("CONSOLES_S", "20"))
BYTES_PER_S = 115_200 // 10
"""A start bit, eight of data, and a stop bit."""
LINE = 64
SETTINGS: TypeAdapter[ConsoleSettings] = TypeAdapter(ConsoleSettings)


@dataclass
class Port:
    """One machine's end: it says numbered lines, as fast as its line can."""

    number: int
    listening: socket.socket
    line: socket.socket | None = None
    sent: int = 0

    @property
    def sign(self) -> str:
        return f"console-{self.number}-of-the-benchmark-{os.getpid()}"

    def said(self, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of everything it ever says."""
        first = begin // LINE
        lines = range(first, end // LINE + 1)
        text = b"".join((b"%03d %010d " % (self.number, at)).ljust(LINE - 2, b".") + b"\r\n" for at in lines)
        return text[begin - first * LINE : end - first * LINE]


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_kib(pid: int) -> int:
    told = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(told.split()[1])


def _speak(ports: list[Port], seconds: float) -> None:
    """Let all say what is due; nothing is skipped when a recorder is late: it is sent when it is taken."""
    began = time.monotonic()
    total = int(seconds * BYTES_PER_S)
    while any(port.sent < total for port in ports):
        due = min(total, int((time.monotonic() - began) * BYTES_PER_S))
        assert time.monotonic() - began < seconds + 60, "the recorders cannot follow"
        for port in ports:
            assert port.line is not None
            if port.sent < due:
                try:
                    port.sent += port.line.send(port.said(port.sent, due))
                except BlockingIOError:
                    continue
        time.sleep(0.05)


def test_a_hundred_consoles_at_once(tmp_path: Path) -> None:
    ports = []
    with ThreadPoolExecutor(CONSOLES) as enders, ExitStack() as stack:
        consoles, pids = [], []
        for number in range(CONSOLES):
            port = Port(number, stack.enter_context(socket.create_server(("127.0.0.1", 0))))
            ports.append(port)
            where = {"method": "tcp", "address": "127.0.0.1", "port": port.listening.getsockname()[1]}
            folder = tmp_path / str(number)
            stack.callback(enders.submit, drop_console, folder, port.sign)
            console = keep_console(
                str(number),
                SETTINGS.validate_python(where),
                Secrets(tmp_path),
                folder,
                f"{tmp_path}/{number}",
                port.sign,
            )
            consoles.append(console)
        for port in ports:
            port.line, _ = port.listening.accept()
            port.line.setblocking(False)
            stack.callback(port.line.close)
            for name in ("line.pid", "recorder.pid"):
                pid = processes.find(tmp_path / str(port.number) / name, port.sign)
                assert pid is not None
                pids.append(pid)
        before, began, tests = sum(map(_processor_s, pids)), time.monotonic(), time.process_time()
        _speak(ports, SECONDS)
        took, ours = time.monotonic() - began, time.process_time() - tests
        end = time.monotonic() + 30
        while time.monotonic() < end and any(c.offset() < p.sent for c, p in zip(consoles, ports, strict=True)):
            time.sleep(0.1)
        cost, memory = sum(map(_processor_s, pids)) - before, sum(map(_resident_kib, pids))
        for port, console in zip(ports, consoles, strict=True):
            recorded = console.read(0)
            assert len(recorded) == port.sent, f"console {port.number}: {port.sent - len(recorded)} bytes are lost"
            assert recorded == port.said(0, port.sent), f"console {port.number}: other bytes than were said"
            moments = [console.time_of(at) for at in range(0, port.sent, BYTES_PER_S)]
            assert all(one is not None and other is not None and one <= other for one, other in pairwise(moments))
    size = sum(port.sent for port in ports) / 1e6
    print(
        f"\n{CONSOLES} consoles, {size:.0f} MB in {took:.0f} s, no byte lost; of one processor: {cost / took:.2f}",
        end="",
    )
    print(f" ({len(pids)} processes, {memory / 1024:.0f} MiB), and the test itself {ours / took:.2f}")
