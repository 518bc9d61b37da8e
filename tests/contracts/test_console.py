"""What every `Console` promises, held against the fake and against a recording with a real recorder behind it."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.errors import Aborted, InfraError
from lab.hosts.drivers.console import recorder
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.machine import processes
from lab.hosts.fakes import ScriptedConsole
from lab.hosts.protocols import Console

SIGN = "a-machine-of-the-tests"
SCRIPT = Path(recorder.__file__)


@dataclass
class Machine:
    """Plays QEMU: the far end of the serial line."""

    folder: Path
    line: socket.socket
    console: RecordedConsole

    def say(self, data: bytes) -> None:
        self.line.sendall(data)
        end = time.monotonic() + 10
        while not self.console.log.read_bytes().endswith(data) and time.monotonic() < end:
            time.sleep(0.01)

    def heard(self, size: int) -> bytes:
        self.line.settimeout(10)
        data = b""
        while len(data) < size:
            data += self.line.recv(size - len(data))
        return data


def start(folder: Path) -> None:
    processes.start_helper(SCRIPT, str(folder), f"{folder}/m", SIGN, log=folder / "recorder.log")


def stop(folder: Path, number: signal.Signals = signal.SIGTERM) -> None:
    pid = processes.find(folder / "recorder.pid", SIGN)
    if pid is not None:
        assert processes.end(pid, SIGN, number, within_s=10)


def connected(folder: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.connect(f"{folder}/m.serial")
    return line


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("m")
    start(folder)
    console = RecordedConsole("m", folder / "console.log", folder / "console.idx", f"{folder}/m.console")
    found = Machine(folder, connected(folder), console)
    yield found
    found.line.close()
    stop(folder)


@pytest.fixture(params=["fake", "recorded"])
def console(request: pytest.FixtureRequest) -> Iterator[tuple[Console, object]]:
    """A console, and what makes it speak."""
    if request.param == "fake":
        fake = ScriptedConsole()
        yield fake, fake
    else:
        machine: Machine = request.getfixturevalue("machine")
        yield machine.console, machine


def say(who: object, data: bytes) -> None:
    assert isinstance(who, ScriptedConsole | Machine)
    who.say(data)


def test_what_is_said_is_kept_at_its_offset(console: tuple[Console, object]) -> None:
    there, who = console
    assert there.offset() == 0
    say(who, b"one\n")
    at = there.offset()
    say(who, b"two\n")
    assert there.read(0) == b"one\ntwo\n"
    assert there.read(at) == b"two\n"
    assert there.read(1, 3) == b"ne"
    assert there.read(100) == b""


def test_a_wait_looks_only_behind_its_offset(console: tuple[Console, object]) -> None:
    there, who = console
    say(who, b"ready 1\n")
    at = there.offset()
    assert there.wait_for(re.compile(rb"ready"), since=at, timeout_s=0.3) is None
    say(who, b"ready 2\n")
    found = there.wait_for(re.compile(rb"ready (\d)"), since=at, timeout_s=5)
    assert found is not None
    assert found[1] == b"2"


def test_a_guard_ends_a_wait(console: tuple[Console, object]) -> None:
    def guard() -> None:
        raise Aborted("enough")

    with pytest.raises(Aborted):
        console[0].wait_for(re.compile(b"never"), since=0, timeout_s=60, guard=guard)


def test_a_byte_has_its_time_once_it_was_received(console: tuple[Console, object]) -> None:
    there, who = console
    assert there.time_of(0) is None
    say(who, b"abc")
    assert there.time_of(3) is None
    assert there.time_of(-1) is None
    moment = there.time_of(2)
    assert moment is not None
    assert moment.tzinfo is UTC


def test_a_wait_is_met_by_what_comes_later(machine: Machine) -> None:
    threading.Timer(0.3, lambda: machine.line.sendall(b"...rea")).start()
    threading.Timer(0.6, lambda: machine.line.sendall(b"dy...")).start()
    assert machine.console.wait_for(re.compile(rb"ready"), since=0, timeout_s=10) is not None


def test_what_is_typed_reaches_the_machine(machine: Machine) -> None:
    machine.console.write(b"hello\n")
    assert machine.heard(6) == b"hello\n"


def test_a_listener_hears_what_comes_and_may_type(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(f"{machine.folder}/m.console")
        peer.sendall(b"x")
        assert machine.heard(1) == b"x"  # so it is known to be there
        machine.line.sendall(b"answer")
        assert peer.recv(100) == b"answer"


def test_a_listener_that_does_not_read_harms_nobody(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{machine.folder}/m.console")
        for _ in range(40):
            machine.line.sendall(b"y" * 100_000)
        machine.say(b"the end")
    assert machine.console.offset() == 4_000_007


def test_no_byte_of_a_long_stream_is_lost(machine: Machine) -> None:
    expected = bytearray()
    number = 0
    for burst in range(40):
        data = b"".join(b"%010d line of the stream\n" % (number + i) for i in range(16_000))
        number += 16_000
        expected += data
        machine.line.sendall(data)
        if burst % 10 == 0:
            time.sleep(0.15)
    machine.say(b"the end")
    assert machine.console.read(0) == bytes(expected) + b"the end"
    # Searched through in pieces, the last line is found as well.
    last = re.compile(rb"^%010d line" % (number - 1), re.MULTILINE)
    assert machine.console.wait_for(last, since=0, timeout_s=0.0) is not None


def test_times_follow_the_stream(machine: Machine) -> None:
    began = datetime.now(UTC)
    for i in range(8):
        machine.say(b"%d" % i)
        time.sleep(0.15)
    times = [machine.console.time_of(i) for i in range(8)]
    known = [moment for moment in times if moment is not None]
    assert len(known) == 8
    assert known == sorted(known)
    assert abs(known[0] - began) < timedelta(seconds=1)
    assert known[7] - known[0] > timedelta(seconds=0.9)
    assert machine.console.index.stat().st_size <= 12 * recorder.INDEX_RECORD.size


def test_offsets_go_on_over_a_power_cycle(machine: Machine) -> None:
    machine.say(b"first life\n")
    machine.line.close()
    stop(machine.folder)
    with machine.console.index.open("ab") as index:
        index.write(b"torn")  # the recorder was killed in the middle of a record
    start(machine.folder)
    machine.line = connected(machine.folder)
    machine.say(b"second life\n")
    assert machine.console.read(0) == b"first life\nsecond life\n"
    assert machine.console.time_of(12) is not None


def test_a_machine_that_connects_again_is_heard(machine: Machine) -> None:
    machine.say(b"one ")
    machine.line.close()
    machine.line = connected(machine.folder)
    machine.say(b"two")
    assert machine.console.read(0) == b"one two"


def test_what_was_sent_before_the_recorder_is_told_to_end_is_kept(machine: Machine) -> None:
    machine.line.sendall(b"z" * 150_000)
    machine.line.close()
    stop(machine.folder)
    assert machine.console.offset() == 150_000


def test_there_is_one_recorder_only(machine: Machine) -> None:
    with pytest.raises(InfraError, match=r"recorder\.py"):
        start(machine.folder)
    machine.say(b"still here")


def test_typing_on_a_console_nobody_records_is_told(tmp_path: Path) -> None:
    there = RecordedConsole("m", tmp_path / "log", tmp_path / "idx", str(tmp_path / "peers"))
    assert there.offset() == 0
    assert there.read(0) == b""
    with pytest.raises(InfraError, match="cannot type"):
        there.write(b"x")
