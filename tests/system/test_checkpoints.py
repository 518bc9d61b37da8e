"""Hosts that start from checkpoints, with real Xen: a job on one passes, and a bad one costs no more than a boot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Cli

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

JOB = "test-amd64-amd64-xl-credit2"


def run_job(cli: Cli) -> dict[str, Any]:
    done = cli.run("flight", "run", "--matrix", "full", "--jobs", JOB, "--json")
    flight = json.loads(done.stdout)
    [job] = flight["jobs"]
    assert (done.returncode, job["status"], job["attempts"]) == (0, "pass", 1), job
    return {**job, "flight": flight["flight"]}


def boot_log(cli: Cli, job: dict[str, Any]) -> str:
    return cli.run("job", "log", f"{job['flight']}.{JOB}", "host-boot").stdout


def checkpoints(cli: Cli) -> list[Path]:
    return [path for path in (cli.home / "checkpoints").iterdir() if not path.name.startswith(".")]


def test_a_job_starts_from_what_an_earlier_one_has_booted_and_a_bad_checkpoint_is_booted_anew(cli: Cli) -> None:
    first = run_job(cli)
    assert first["runvars"]["host_boot_from"] == "cold"
    [saved] = checkpoints(cli)

    second = run_job(cli)
    assert second["runvars"]["host_boot_from"] == "checkpoint"
    assert float(second["runvars"]["host_boot_s"]) < float(first["runvars"]["host_boot_s"]) / 2
    assert second["runvars"]["host_xen_version"] == first["runvars"]["host_xen_version"]

    state = saved / "state"
    state.write_bytes(state.read_bytes()[:-1000])
    third = run_job(cli)
    assert third["runvars"]["host_boot_from"] == "cold"
    assert "thrown away" in boot_log(cli, third)
    assert checkpoints(cli) == [saved], "saved again"
    assert cli.machines_on() == []
    assert cli.worker_pids() == []
