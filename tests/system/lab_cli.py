"""The `lab` command in a home of its own, as a user types it; built images are shared with the user's lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.hosts.drivers.console.recorded import RecordedConsole

FLIGHT_LIMIT_S = 900


def image_cache() -> Path:
    """Where built images are kept between runs: those of the user's own lab."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    home = Path(os.environ.get("LAB_TEST_HOME", f"{state}/flightline"))
    return home / "images"


@dataclass(frozen=True)
class Cli:
    """The `lab` command in a home of its own."""

    home: Path

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "lab.cli", *args]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
        return {**kept, "LAB_HOME": str(self.home), "LAB_LEASE_S": "8", "COLUMNS": "200"}

    def run(self, *args: str, timeout_s: float = FLIGHT_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run to the end; its output stays for the test's report."""
        done = subprocess.run(
            self.command(*args), env=self.environment, capture_output=True, text=True, timeout=timeout_s, cwd="/"
        )
        print(done.stderr)
        return done

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start and go on."""
        with (self.home / "stderr.txt").open("w") as complaints:
            return subprocess.Popen(
                self.command(*args),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                cwd="/",
                # whoever runs the tests in the background may have Ctrl-C ignored, and a child inherits that
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def flight(self) -> dict[str, Any] | None:
        """The newest flight as JSON, None before there is one."""
        done = subprocess.run(
            self.command("flight", "show", "latest", "--json"), env=self.environment, capture_output=True, text=True
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_for_step(self, testid: str, *, attempt: int = 1, timeout_s: float = 300) -> dict[str, Any]:
        """Wait until a step of the newest flight's first job runs or has ended; returns the job."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            flight = self.flight()
            for job in flight["jobs"] if flight else ():
                if job["attempts"] >= attempt and any(step["testid"] == testid for step in job["steps"]):
                    return job
            time.sleep(0.5)
        raise AssertionError(f"step {testid} did not begin within {timeout_s} s: {self.flight()}")

    def qemu_pid(self, host: str) -> int | None:
        """The process of an emulated host, None when it is off."""
        file = self.home / "hosts" / host / "qemu.pid"
        try:
            pid = int(file.read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if b"qemu" in command else None

    def console(self, host: str) -> RecordedConsole:
        """The recording of an emulated host's serial console."""
        folder = self.home / "hosts" / host
        return RecordedConsole(host, folder / "console.log", folder / "console.idx", str(folder / "none"))

    def worker_pids(self) -> list[int]:
        """The worker processes of this lab."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"worker" in command and f"LAB_HOME={self.home}\0".encode() in environment:
                    found.append(int(entry.name))
        return found

    def machines_on(self) -> list[str]:
        """The hosts that are powered on."""
        return [host for host in ("emu0", "emu1", "emu2", "emu3") if self.qemu_pid(host) is not None]


def keep_builds(cli: Cli) -> None:
    """Let the lab share what is compiled, and from what, with the user's own: made once for all runs, as images are."""
    for kept in ("builds", "ccache", "trees"):
        place = image_cache().parent / kept
        place.mkdir(parents=True, exist_ok=True)
        (cli.home / kept).symlink_to(place)
