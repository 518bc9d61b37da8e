"""Flights on real Xen, as a user runs them: what passes, what fails, what is broken, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime

import pytest
from lab_cli import Cli

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

PV, QCOW2 = "test-amd64-amd64-xl-pv", "test-amd64-amd64-xl-qcow2"
Ending = Callable[[subprocess.Popen[str]], None]


def test_a_disk_corrupted_behind_the_guests_back_fails_the_disk_step(cli: Cli) -> None:
    done = cli.run("flight", "run", "--jobs", QCOW2, "--set", "fault=disk-corrupt", "--json")
    assert done.returncode == 1
    [job] = json.loads(done.stdout)["jobs"]
    assert (job["status"], job["attempts"]) == ("fail", 1)
    [failed] = [step for step in job["steps"] if step["status"] == "fail"]
    assert failed["testid"].startswith("disk-")
    assert job["steps"][-1]["testid"] == "logs-capture"
    assert job["steps"][-1]["status"] == "pass"


def test_a_machine_that_dies_breaks_the_attempt_and_the_job_is_tried_again(cli: Cli, ending: Ending) -> None:
    running = cli.start("flight", "run", "--jobs", PV, "--json")
    ending(running)
    job = cli.wait_for_step("guest-start")
    first = job["hosts"]["host"]
    pid = cli.qemu_pid(first)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    output, _ = running.communicate(timeout=900)
    assert running.returncode == 0, output
    [job] = json.loads(output)["jobs"]
    assert (job["status"], job["attempts"]) == ("pass", 2)
    shown = json.loads(cli.run("job", "show", f"1.{PV}", "--json").stdout)
    broken, passed = shown["history"]
    assert (broken["status"], passed["status"]) == ("broken", "pass")
    assert "off" in broken["reason"]
    assert passed["hosts"]["host"] != first, "the other host was free"
    died = next(step for step in broken["steps"] if step["status"] == "broken")
    assert any("console" in label for label in died["evidence"]), died


def test_ctrl_c_aborts_powers_off_and_keeps_the_evidence(cli: Cli, ending: Ending) -> None:
    running = cli.start("flight", "run", "--jobs", PV, "--json")
    ending(running)
    cli.wait_for_step("xen-boot")
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=180)
    assert running.returncode == 4
    flight = json.loads(output)
    assert flight["status"] == "aborted"
    [job] = flight["jobs"]
    assert job["steps"][-1]["testid"] == "logs-capture"
    assert cli.machines_on() == []
    assert cli.worker_pids() == []
    assert json.loads(cli.run("host", "list", "--json").stdout)[0]["state"] == "free"


def test_a_panic_of_xen_ends_the_step_within_two_seconds_with_the_panic_as_its_reason(cli: Cli) -> None:
    faults = ("--set", "fault=xen-crash", "--set", "xen_boot_append=nmi=fatal")
    done = cli.run("flight", "run", "--jobs", PV, *faults, "--json")
    assert done.returncode == 1
    [job] = json.loads(done.stdout)["jobs"]
    assert (job["status"], job["attempts"]) == ("fail", 1)
    [failed] = [step for step in job["steps"] if step["status"] == "fail"]
    assert "Xen panic: FATAL TRAP" in failed["reason"]
    console = cli.console(job["hosts"]["host"])
    printed = console.time_of(console.read(0).rindex(b"Panic on CPU"))
    assert printed is not None
    took = (datetime.fromisoformat(failed["finished"]) - printed).total_seconds()
    print(f"the step ended {took:.2f} s after the panic was printed")
    assert took < 2.0
