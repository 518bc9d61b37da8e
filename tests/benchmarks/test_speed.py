"""How quick hosts and migrations are, in one run, with the conditions beside the figures. Reports; never judges.

pytest tests/benchmarks -m benchmark -s
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

BOOT = "test-amd64-amd64-boot"
X86, ARM = "test-amd64-amd64-xl-qcow2", "test-arm64-arm64-xl-credit2"
XL, LIBVIRT = "test-amd64-amd64-migrupgrade", "test-amd64-amd64-libvirt-migrupgrade"

TARGETS = {
    "x86 host ready, cold": 10.0,
    "arm64 host ready, cold": 8.0,
    "x86 host ready, from a checkpoint": 2.0,
    "arm64 host ready, from a checkpoint": 2.0,
    "xl migration 4.17 to 4.20, 128 MB": 15.0,
    "libvirt migration 4.17 to 4.20": 30.0,
}
"""Seconds on a quiet machine without KVM."""


def conditions() -> dict[str, str]:
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    model = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processors": f"{os.cpu_count()} x {(model or [platform.machine()])[0].strip()}",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "QEMU": qemu.partition("\n")[0],
    }


def seen(home: Path, job: str, name: str, boot_from: str = "") -> float:
    """Run a job in a flight of its own; the first figure of one of its runvars."""
    environment = {**os.environ, "LAB_HOME": str(home)}
    command = [sys.executable, "-m", "lab.cli", "flight", "run", "--matrix", "full", "--jobs", job, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PROJECT)
    flight: dict[str, Any] = json.loads(done.stdout)
    assert flight["status"] == "pass", flight
    runvars: dict[str, str] = next(found["runvars"] for found in flight["jobs"] if found["name"] == job)
    assert runvars.get("host_boot_from", "") in (boot_from, ""), runvars
    return float(runvars[name].split()[0])


def test_speed(tmp_path: Path) -> None:
    home = tmp_path / "lab"
    home.mkdir()
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    cache = Path(os.environ.get("LAB_TEST_HOME", f"{state}/flightline")) / "images"
    (home / "images").symlink_to(cache)

    # Whether KVM works is found out once for each start of this machine, by the first boot, and takes some seconds.
    seen(home, BOOT, "host_boot_s", "cold")
    before = conditions()
    cold = [seen(home, job, "host_boot_s", "cold") for job in (X86, ARM)]  # leaves a checkpoint
    restored = [seen(home, job, "host_boot_s", "checkpoint") for job in (X86, ARM)]
    moved = [seen(home, job, "migrate_s") for job in (XL, LIBVIRT)]

    figures = zip(TARGETS.items(), (*cold, *restored, *moved), strict=True)
    rows = [f"{name:36} {figure:6.1f} s   target {target:4.0f} s" for (name, target), figure in figures]
    notes = [f"{name}: {value}" for name, value in {**before, "load afterwards": conditions()["load"]}.items()]
    print("\n" + "\n".join([*rows, *notes]))
