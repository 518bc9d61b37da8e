"""What the console of a real machine promises, over each protocol, against servers that are not ours."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import ipmi
from peers.machine import SwitchedMachine
from peers.ser2net import SerialPort, console_server
from pydantic import TypeAdapter, ValidationError
from servers import free_port

from lab.hosts.drivers.console.keeper import drop_console, keep_console
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.console.telnet import DO, DONT, IAC, SB, SE, WILL, WONT, Telnet
from lab.hosts.drivers.machine import processes
from lab.machine_settings.console import ConsoleSettings
from lab.secrets import Secrets

SETTINGS: TypeAdapter[ConsoleSettings] = TypeAdapter(ConsoleSettings)
SIGN = "a-metal-host-of-the-tests"
needs_ser2net = pytest.mark.skipif(
    not (shutil.which("ser2net") or Path("/usr/sbin/ser2net").exists()), reason="ser2net is not installed"
)


@dataclass
class Kept:
    """A console that is recorded, and the machine's end of it."""

    console: RecordedConsole
    port: SerialPort
    folder: Path
    again: Callable[[], RecordedConsole]

    def recorded(self, text: bytes, within_s: float = 10.0) -> bool:
        end = time.monotonic() + within_s
        while text not in self.console.read(0):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture(params=["raw", "telnet", "program"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("k")
    with ExitStack() as stack:
        port = stack.enter_context(console_server(folder / "server", telnet=request.param == "telnet"))
        where: dict[str, Any] = {"method": "tcp", "address": "127.0.0.1", "port": port.port}
        if request.param == "telnet":
            where["telnet"] = True
        if request.param == "program":  # as conserver's client or ssh would be: a program on a terminal
            program = folder / "client"
            program.write_text(
                f"#!{sys.executable} -IS\n"
                "import os, select, socket, sys, tty\n"
                "tty.setraw(0)\n"
                f"line = socket.create_connection(('127.0.0.1', {port.port}))\n"
                "while True:\n"
                "    for ready in select.select([0, line], [], [])[0]:\n"
                "        data = os.read(0, 4096) if ready == 0 else line.recv(4096)\n"
                "        if not data: sys.exit()\n"
                "        line.sendall(data) if ready == 0 else os.write(1, data)\n"
            )
            program.chmod(0o755)
            where = {"method": "program", "run": [str(program)]}

        def again() -> RecordedConsole:
            return keep_console(
                "metal", SETTINGS.validate_python(where), Secrets(folder), folder / "host", f"{folder}/m", SIGN
            )

        stack.callback(drop_console, folder / "host", SIGN)
        found = Kept(again(), port, folder / "host", again)
        time.sleep(0.5)  # until the line is there
        yield found


@needs_ser2net
def test_what_the_machine_says_is_recorded_and_what_is_typed_arrives(kept: Kept) -> None:
    everything = bytes(range(256)) + b"\xff\xff\r\n(XEN) up\r\n"
    kept.port.say(b"first words\r\n" + everything)
    assert kept.recorded(b"(XEN) up")
    assert kept.console.read(0).endswith(everything)
    typed = b"\x01\x01help \xff\x00\r"
    kept.console.write(typed)
    assert kept.port.heard(len(typed)) == typed
    assert kept.console.wait_for(re.compile(rb"up\r"), since=0, timeout_s=1) is not None
    assert kept.console.time_of(0) is not None


@needs_ser2net
def test_a_lot_in_order(kept: Kept) -> None:
    lines = b"".join(b"line %06d of a long boot\r\n" % number for number in range(20_000))
    kept.port.say(lines)
    assert kept.recorded(b"line 019999 of a long boot\r\n", within_s=30)
    assert lines in kept.console.read(0)


@needs_ser2net
def test_whoever_finds_recorder_or_line_dead_starts_them_again(kept: Kept) -> None:
    kept.port.say(b"before\r\n")
    assert kept.recorded(b"before")
    for name in ("line.pid", "recorder.pid"):
        pid = processes.find(kept.folder / name, SIGN)
        assert pid is not None
        assert kept.again() == kept.console  # nothing is started twice
        assert processes.find(kept.folder / name, SIGN) == pid
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        kept.again()
        time.sleep(1.0)
        kept.port.say(name.encode() + b" again\r\n")
        assert kept.recorded(name.encode() + b" again")
    assert kept.console.read(0).startswith(b"before") or b"before" in kept.console.read(0)


@needs_ser2net
def test_a_line_that_drops_comes_back_and_the_gap_is_told(tmp_path: Path) -> None:
    folder, port = tmp_path / "host", free_port()
    where = {"method": "tcp", "address": "127.0.0.1", "port": port}
    console = keep_console("metal", SETTINGS.validate_python(where), Secrets(tmp_path), folder, f"{tmp_path}/m", SIGN)
    try:
        for word in (b"one", b"two"):
            with console_server(tmp_path / "server", port=port) as server:
                end = time.monotonic() + 15
                while word not in console.read(0) and time.monotonic() < end:
                    server.say(word + b"\r\n")
                    time.sleep(0.3)
                assert word in console.read(0)
        gaps = console.gaps()
        assert len(gaps) == 2  # until the server was there, and between its two lives
        assert gaps[0].why == "Connection refused"
        assert gaps[1].offset > 0
        assert gaps[1].back > gaps[1].lost
        assert console.tail().startswith("[the console was not heard from ")
        assert console.gaps(since=console.offset() + 1) == []
    finally:
        drop_console(folder, SIGN)
    assert processes.find(folder / "line.pid", SIGN) is None


def test_serial_over_lan(tmp_path: Path) -> None:
    (tmp_path / "secrets.toml").write_text(f'bmc = "{ipmi.PASSWORD}"\n')
    (tmp_path / "secrets.toml").chmod(0o600)
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    folder = tmp_path / "host"
    with ipmi.ipmi_bmc(tmp_path / "bmc", SwitchedMachine(tmp_path / "m"), sol=os.ttyname(theirs)) as port:
        where = {"method": "ipmi-sol", "address": "127.0.0.1", "port": port, "user": ipmi.USER, "password": "bmc",
                 "cipher_suite": 3}  # fmt: skip
        console = keep_console(
            "metal", SETTINGS.validate_python(where), Secrets(tmp_path), folder, f"{tmp_path}/m", SIGN
        )
        try:
            listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
            assert ipmi.PASSWORD not in listed
            assert console.wait_for(re.compile(rb"operational"), since=0, timeout_s=15)
            os.write(ours, b"(XEN) over LAN\r\n")
            assert console.wait_for(re.compile(rb"over LAN\r\n"), since=0, timeout_s=10)
            console.write(b"~.typed\r")  # ipmitool's own escape, were it not another one
            assert SerialPort(ours, 0).heard(8) == b"~.typed\r"
        finally:
            drop_console(folder, SIGN)
            os.close(ours)
            os.close(theirs)


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_telnet_bytes_arrive_whatever_they_are_and_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    sent = Telnet.say(data)
    noise = bytes([IAC, WILL, 1, IAC, SB, 24, 1, IAC, SE, IAC, DO, 31])
    stream = noise + sent + noise
    heard = b""
    telnet = Telnet()
    marks = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    begin = 0
    for mark in marks:
        some, _ = telnet.hear(stream[begin:mark])
        heard += some
        begin = mark
    assert heard == data


def test_telnet_agrees_to_little_and_never_talks_for_ever() -> None:
    telnet = Telnet()
    _, answer = telnet.hear(bytes([IAC, WILL, 1, IAC, WILL, 99, IAC, DO, 0, IAC, DO, 24]))
    assert answer == bytes([IAC, DO, 1, IAC, DONT, 99, IAC, WILL, 0, IAC, WONT, 24])
    assert telnet.hear(bytes([IAC, WILL, 1, IAC, WILL, 99])) == (b"", b"")
    assert telnet.hear(bytes([IAC, WONT, 1, IAC, DONT, 0])) == (b"", b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "tcp", "address": "a b", "port": 1},
        {"method": "tcp", "address": "a", "port": 0},
        {"method": "ipmi-sol", "address": "a", "user": "u"},
        {"method": "program", "run": []},
        {"method": "program", "run": "console -M x"},
        {"method": "program", "run": ["a\x00b"]},
        {"method": "morse"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SETTINGS.validate_python(wrong)
