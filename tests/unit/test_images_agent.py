"""The guest's agent, compiled for this machine and spoken to through a pseudo-terminal."""

import os
import pty
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "images/sources"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compiled(name: str, folder: Path) -> Path:
    out = folder / name
    command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", out, SOURCES / f"{name}.c"]
    subprocess.run(command, check=True)
    return out


class Guest:
    def __init__(self, program: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([program, os.ttyname(slave)])
        self.text = ""

    def wait(self, pattern: str, seconds: float = 10) -> re.Match[str]:
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.MULTILINE)):
            assert time.monotonic() < end, f"{pattern} is not in {self.text!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 65536).decode()
        return found

    def send(self, line: str) -> None:
        os.write(self.master, line.encode() + b"\n")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("guest-agent", tmp_path_factory.mktemp("agent"))


@pytest.fixture
def guest(program: Path) -> Iterator[Guest]:
    guest = Guest(program)
    guest.wait(r"^LAB-GUEST ready uptime=\d+\.\d{3} mem_pages=2048$")
    yield guest
    guest.process.kill()
    guest.process.wait()


def test_it_answers_each_verb(guest: Guest) -> None:
    guest.send("LAB a1 ping")
    guest.wait(r"^LAB-REPLY a1 ok pong$")
    guest.send("LAB a2 mem")
    guest.wait(r"^LAB-REPLY a2 ok pages=2048 generations=\d+ churned=\d+$")
    guest.send("LAB a3 gap")
    guest.wait(r"^LAB-REPLY a3 ok maxgap_ms=\d+ wall_at=\d+\.\d{3}$")
    guest.send("LAB a4 reset")
    guest.wait(r"^LAB-REPLY a4 ok reset$")


def write_to_memory(guest: Guest, mapping: str, *, at: int) -> None:
    """Overwrite eight bytes `at` so far into the mapping whose line in /proc has `mapping`."""
    maps = Path(f"/proc/{guest.process.pid}/maps").read_text()
    line = next(line for line in maps.splitlines() if mapping in line)
    with Path(f"/proc/{guest.process.pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(int(line.partition("-")[0], 16) + at)
        memory.write(b"LABFAULT")


def test_its_churning_pages_change_all_the_time_and_stay_whole(guest: Guest) -> None:
    def churned(ident: str) -> int:
        guest.send(f"LAB {ident} mem")
        return int(guest.wait(rf"^LAB-REPLY {ident} ok pages=2048 generations=\d+ churned=(\d+)$")[1])

    first = churned("c1")
    guest.wait(r"^LAB-HB seq=2 .*mem=ok", 10)  # by now every page has been written at least twice
    assert churned("c2") - first > 2 * 128
    guest.wait(r"^LAB-HB seq=3 .*mem=ok", 10)


@pytest.mark.parametrize("word", [0, 400])
def test_a_churning_page_that_is_stale_or_damaged_is_found(guest: Guest, word: int) -> None:
    write_to_memory(guest, "/dev/zero", at=77 * 4096 + word * 8)
    guest.wait(r"^LAB-HB seq=\d+ .*mem=bad", 10)
    guest.send("LAB c1 mem")
    found = guest.wait(r"^LAB-REPLY c1 error churn_page=77 expected_number=(-?\d+) found_number=(-?\d+)$")
    assert (found[1] == found[2]) == (word > 0)


def test_a_command_gives_its_lines_and_its_exit_status_and_does_not_stop_the_heart(guest: Guest) -> None:
    guest.send("LAB s1 sh echo out; echo err >&2; sleep 1.5; printf 'no end'; exit 3")
    guest.wait(r"^LAB-OUT s1 out$")
    guest.send("LAB s2 sh true")
    guest.wait(r"^LAB-REPLY s2 error busy$")
    guest.wait(r"^LAB-REPLY s1 error exit=3$")
    before = guest.text.partition("LAB-REPLY s1")[0]
    assert "LAB-OUT s1 err\r\n" in before or "LAB-OUT s1 err\n" in before
    assert "LAB-OUT s1 no end" in before
    beat = re.search(r"^LAB-HB seq=\d+ wall=\d+\.\d{3} mono=\d+\.\d{3} maxgap_ms=\d+ mem=ok", before, re.MULTILINE)
    assert beat is not None


def test_a_child_left_behind_does_not_hold_the_reply(guest: Guest) -> None:
    guest.send("LAB b1 sh sleep 5 & echo started")
    guest.wait(r"^LAB-REPLY b1 ok exit=0$", 3)


def test_much_output_is_complete(guest: Guest) -> None:
    guest.send("LAB m1 sh seq 20000")
    guest.wait(r"^LAB-REPLY m1 ok exit=0$")
    assert [int(line) for line in re.findall(r"^LAB-OUT m1 (\d+)", guest.text, re.MULTILINE)] == list(range(1, 20001))


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("LAB x1 dance", "LAB-REPLY x1 error unknown verb"),
        ("LAB x1", "LAB-REPLY x1 error no verb"),
        ("LAB x1 sh", "LAB-REPLY x1 error no command"),
        ("LAB x! ping", r"LAB-REPLY \? error malformed id"),
        ("hello", r"LAB-REPLY \? error malformed line"),
        ("LAB " + "i" * 100 + " ping", r"LAB-REPLY \? error malformed id"),
    ],
)
def test_what_it_does_not_understand_it_says(guest: Guest, line: str, answer: str) -> None:
    guest.send(line)
    guest.wait(f"^{answer}$")


def test_an_overlong_line_is_dropped_and_the_next_one_heard(guest: Guest) -> None:
    for _ in range(4):
        os.write(guest.master, b"LAB o1 ping" + b" " * 1000)
    guest.send("")
    guest.send("LAB o2 ping")
    guest.wait(r"^LAB-REPLY o2 ok pong$")
    assert "o1" not in guest.text


def test_the_relay_carries_both_ways_and_ends_each_on_its_own(tmp_path: Path) -> None:
    relay = compiled("migration-relay", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [relay, "127.0.0.1", str(port)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            peer, _ = server.accept()
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            sent = os.urandom(300_000)
            process.stdin.write(sent)
            process.stdin.close()
            got = b""
            while data := peer.recv(65536):
                got += data
            peer.sendall(b"received")
            peer.close()
            assert process.stdout.read() == b"received"
            assert process.stderr.read() == b"migration-relay: sent 300000 bytes\n"
            assert process.wait(10) == 0
        assert got == sent
        for wrong in ([], ["127.0.0.1"], ["localhost", "1"], ["127.0.0.1", "0"], ["127.0.0.1", "70000"]):
            done = subprocess.run([relay, *wrong], capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert "usage" in done.stderr
