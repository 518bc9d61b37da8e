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

BOOT, PVH, MIGRATION = "test-amd64-amd64-boot", "test-amd64-amd64-xl-qcow2", "test-amd64-amd64-migrupgrade"

TARGETS = {"host ready, cold": 10.0, "host ready, from a checkpoint": 2.0, "xl migration 4.17 to 4.20, 128 MB": 15.0}
"""Seconds on a quiet machine without KVM."""


def conditions() -> dict[str, str]:
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    model = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processors": f"{os.cpu_count()} x {(model or [platform.machine()])[0].strip()}",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "QEMU": qemu.partition("\n")[0],
    }


def runvars(home: Path, lab_file: Path, *jobs: str) -> dict[str, dict[str, str]]:
    """Run these jobs in a flight of their own; the runvars of each."""
    environment = {**os.environ, "LAB_HOME": str(home), "LAB_FILE": str(lab_file)}
    command = [sys.executable, "-m", "lab.cli", "flight", "run", "--matrix", "full", "--jobs", ",".join(jobs), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PROJECT)
    flight: dict[str, Any] = json.loads(done.stdout)
    assert flight["status"] == "pass", flight
    return {job["name"]: job["runvars"] for job in flight["jobs"]}


def test_speed(tmp_path: Path) -> None:
    home = tmp_path / "lab"
    home.mkdir()
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    cache = Path(os.environ.get("LAB_TEST_HOME", f"{state}/flightline")) / "images"
    (home / "images").symlink_to(cache)
    lab_file = tmp_path / "lab.toml"
    lab_file.write_text((PROJECT / "lab.toml").read_text().replace("[lab]\n", "[lab]\ncheckpoints_mib = 4096\n", 1))

    before = conditions()
    cold = runvars(home, lab_file, BOOT)[BOOT]
    runvars(home, lab_file, PVH)  # leaves a checkpoint
    restored = runvars(home, lab_file, PVH)[PVH]
    moved = runvars(home, lab_file, MIGRATION)[MIGRATION]
    assert (cold["host_boot_from"], restored["host_boot_from"]) == ("cold", "checkpoint")

    seen = dict(zip(TARGETS, (cold["host_boot_s"], restored["host_boot_s"], moved["migrate_s"]), strict=True))
    rows = [f"{name:36} {float(seen[name]):6.1f} s   target {target:4.0f} s" for name, target in TARGETS.items()]
    notes = [f"{name}: {value}" for name, value in {**before, "load afterwards": conditions()["load"]}.items()]
    print("\n" + "\n".join([*rows, *notes]))
