"""The sandbox, with this machine's own system as its root."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from lab.errors import Aborted, InfraError
from lab.sandbox import Limits, Sandbox

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    (tmp_path / "source").mkdir()
    return Sandbox(
        root=Path("/"),
        writable={"/tmp/build": tmp_path / "source"},
        folder="/tmp/build",
        environment={"PATH": "/usr/bin:/bin"},
        limits=Limits(wall_s=20),
    )


def run(box: Sandbox, script: str, tmp_path: Path) -> tuple[int | None, str]:
    log = tmp_path / "log"
    status = box.run(["sh", "-c", script], log)
    return status, log.read_text()


def test_what_is_written_inside_stays_inside_but_for_the_bound_folder(box: Sandbox, tmp_path: Path) -> None:
    status, said = run(box, "echo x >out; echo y >/tmp/elsewhere; touch /usr/x || echo refused; id -u", tmp_path)
    assert status == 0
    assert "refused" in said
    assert said.endswith("1000\n")
    assert (tmp_path / "source/out").read_text() == "x\n"
    assert not Path("/tmp/elsewhere").exists()


def test_there_is_no_network_no_other_process_and_no_variable_of_ours(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_SECRET", "hidden")
    status, said = run(box, "cat /proc/net/dev; ls -d /proc/[0-9]* | wc -l; env", tmp_path)
    assert status == 0
    assert "eth0" not in said
    assert "hidden" not in said
    assert int(said.split("\nPATH", maxsplit=1)[0].splitlines()[-1] if said[0].isdigit() else 3) < 10


def test_limits_end_what_takes_too_long_or_too_much(box: Sandbox, tmp_path: Path) -> None:
    short = Sandbox(
        root=box.root, writable=box.writable, folder=box.folder, environment=box.environment,
        limits=Limits(wall_s=0.5, file_mib=1),
    )  # fmt: skip
    assert run(short, "sleep 60", tmp_path)[0] is None
    assert run(short, "head -c 3000000 /dev/zero >big", tmp_path)[0] != 0
    assert (tmp_path / "source/big").stat().st_size <= 1 << 20


def test_the_guard_ends_it(box: Sandbox, tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()

    def guard() -> None:
        if stop.is_set():
            raise Aborted("enough")

    with pytest.raises(Aborted):
        box.run(["sleep", "60"], tmp_path / "log", guard=guard)


def test_a_sandbox_that_cannot_be_made_is_the_labs_fault(box: Sandbox, tmp_path: Path) -> None:
    broken = Sandbox(root=tmp_path / "nowhere", writable={}, folder="/", environment={})
    with pytest.raises(InfraError, match="cannot be made"):
        broken.run(["true"], tmp_path / "log")
