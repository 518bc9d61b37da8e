"""The program that starts QEMU in a stub domain, compiled for this machine."""

import os
import pty
import shutil
import subprocess
import termios
from pathlib import Path

import pytest
from test_images_agent import compiled

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

LOOK = "import os, sys; os.ftruncate(7, 0); os.write(7, b'a\\nb'); print(os.get_inheritable(7), os.read(5, 8))"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("stubdom-exec", tmp_path_factory.mktemp("stubdom"))


def test_the_consoles_are_raw_and_can_be_emptied(program: Path) -> None:
    write_master, write_slave = pty.openpty()
    read_master, read_slave = pty.openpty()
    os.write(read_master, b"\r\x03\x04\n")
    done = subprocess.run(
        [
            *(program, "5", "r", os.ttyname(read_slave), "7", "w", os.ttyname(write_slave), "--"),
            *(shutil.which("python3") or "python3", "-c", LOOK),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "True" in done.stdout
    assert os.read(write_master, 8) == b"a\nb"  # no carriage return was put in
    assert not termios.tcgetattr(write_slave)[3] & (termios.ICANON | termios.ECHO)
    assert not termios.tcgetattr(read_slave)[3] & termios.ICANON


def test_a_file_that_is_no_console_is_refused(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [program, "5", "r", tmp_path / "file", "--", "/bin/true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--"], ["5", "r"]])
def test_without_a_program_it_says_how_it_is_used(program: Path, arguments: list[str]) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
