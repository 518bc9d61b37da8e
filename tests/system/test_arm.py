"""Flights on arm64 hosts, beside x86 ones, on a machine that may run two at a time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from lab_cli import Cli

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

ARM, ARMHF = "test-arm64-arm64-xl", "test-arm64-arm64-xl-armhf"
Ending = Callable[[subprocess.Popen[str]], None]
FULL = ("flight", "run", "--matrix", "full", "--json")


def test_three_hosts_serve_a_flight_and_never_more_than_two_run(cli: Cli, ending: Ending) -> None:
    older, newer = "test-amd64-amd64-xl-raw", "test-amd64-amd64-xl-qcow2"
    running = cli.start(*FULL, "--jobs", f"{older},{newer},{ARM},{ARMHF}")
    ending(running)
    most: set[str] = set()
    used: set[str] = set()
    output = None
    while output is None:
        try:
            output, _ = running.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            now = set(cli.machines_on())
            used |= now
            most = max(most, now, key=len)
    flight = json.loads(output)
    assert running.returncode == 0, flight
    assert len(most) == 2
    assert {"emu0", "emu2"} <= used
    for job in flight["jobs"]:
        skipped = {step["testid"]: step["reason"] for step in job["steps"] if step["status"] == "skipped"}
        if job["name"] in (ARM, ARMHF):
            assert "no save" in skipped["guest-saverestore"]
            assert "no migrate" in skipped["guest-localmigrate"]
    assert cli.machines_on() == []


def test_what_is_broken_on_arm_is_noticed(cli: Cli) -> None:
    done = cli.run(
        *FULL, "--jobs", f"{ARM},{ARMHF}", "--set", f"{ARM}:fault=leak", "--set", f"{ARMHF}:fault=guest-crash"
    )
    assert done.returncode == 1
    failed = {
        job["name"]: [step["testid"] for step in job["steps"] if step["status"] == "fail"]
        for job in json.loads(done.stdout)["jobs"]
    }
    assert failed[ARM] == ["leak-check/check"]
    assert failed[ARMHF][0] == "guest-stop"
