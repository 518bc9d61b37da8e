"""Each test case of the x86 catalogue is shown to fail when what it checks is broken, on real Xen, in one flight.

A proof is a job with a fault (testcases/README.md), or with another set-up than the one it asks for. It has to *fail*
at the step named here, with these words. All take about 20 minutes, so they run when asked for: `./run test -m proof`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from lab_cli import Cli, keep_builds

pytestmark = [pytest.mark.system, pytest.mark.proof, pytest.mark.timeout(5400)]

X86 = "test-amd64-amd64-"


@dataclass(frozen=True)
class Proof:
    """What is broken in a job, the step that has to notice, and words of its reason."""

    job: str
    broken: str
    step: str
    says: str


READ_BACK = "should read back what was written"

PROOFS = (
    Proof("xl-raw", "fault=disk-corrupt", "disk-io/read", READ_BACK),
    Proof("xl-vhd", "fault=disk-corrupt", "disk-io/read", READ_BACK),
    Proof("xl-vhd-fixed", "fault=disk-corrupt", "disk-io/read", READ_BACK),
    Proof("xl-qcow2", "fault=disk-header-lies", "guest-saverestore", "must not be opened: its backing file"),
    Proof("xl-qcow2-backing", "fault=backing-corrupt", "disk-verify", "should have in its snapshot 'before'"),
    Proof("xl-qcow2-xsm", "fault=xsm-denial", "xsm-audit", "prot_domU_t"),
    Proof("migrupgrade", "fault=guest-lost", "guest-migrate", "the guest did not survive it"),
    Proof("migrate-pair-pv", "fault=receiver-killed", "guest-migrate/src_host.dst_host", "lives on where it was"),
    Proof("migrate-pair-pvh", "fault=churn-corrupt", "guest-migrate/src_host.dst_host", "churn_page"),
    Proof("migrate-pair-pv-xsm", "fault=target-disk-differs", "disk-io/dst_host", READ_BACK),
    Proof("libvirt", "fault=guest-crash", "guest-saverestore", ""),
    Proof("libvirt-xsm", "fault=leak", "leak-check/check", "leaked-by-lab"),
    Proof("libvirt-migrupgrade", "fault=migration-refused", "guest-migrate", "lives on where it was"),
    Proof("xl-hvm-stubdom", "fault=stubdom-lost", "guest-saverestore", ""),
    Proof("xl-hvm-vhd", "fault=boot-corrupt", "guest-start", "No bootable device"),
    Proof("xsm-default", "fault=xsm-permissive", "xsm-prove", "but it was done"),
    Proof("xsm-isolated", "fault=xsm-loosened", "xsm-prove", "but it was done"),
    Proof("xsm-nomigrate", "fault=xsm-label", "xsm-prove", "label"),
    Proof("xsm-vault", "fault=xsm-loosened", "xsm-prove", "but it was done"),
    Proof("xl-credit2", "xen_boot_append=sched=credit", "guest-scheduler", "should be credit2, but it is credit"),
    Proof("xl-shadow", "guest_hap=1", "guest-paging", ""),
    Proof("xl-pvshim", "guest_pvshim=0", "guest-pvshim", ""),
    Proof("xl-multivcpu", "fault=vcpu-lost", "guest-vcpus", "should use the 4 CPUs"),
    Proof("livepatch", "fault=livepatch-lost", "livepatch/replace", ""),
)
SNAPSHOT = Proof("xl-qcow2", "fault=snapshot-corrupt", "disk-verify", "should have in its snapshot")


@pytest.fixture(scope="module")
def broken_jobs(shared_cli: Cli) -> dict[str, dict[str, Any]]:
    """The jobs of one flight in which everything is broken, by name."""
    return fly(shared_cli, PROOFS)


def fly(cli: Cli, proofs: tuple[Proof, ...]) -> dict[str, dict[str, Any]]:
    keep_builds(cli)
    settings = [word for proof in proofs for word in ("--set", f"{X86}{proof.job}:{proof.broken}")]
    jobs = ",".join(f"{X86}{proof.job}" for proof in proofs)
    done = cli.run("flight", "run", "--matrix", "full", "--jobs", jobs, *settings, "--json", timeout_s=5000)
    assert done.returncode == 1
    assert cli.machines_on() == []
    return {job["name"]: job for job in json.loads(done.stdout)["jobs"]}


def check(proof: Proof, job: dict[str, Any]) -> None:
    failed = [step for step in job["steps"] if step["status"] not in ("pass", "skipped")]
    assert failed, f"{proof.broken} was not noticed: {job['name']} is {job['status']}"
    assert (failed[0]["status"], failed[0]["testid"]) == ("fail", proof.step), failed[0]
    assert proof.says in failed[0]["reason"], failed[0]["reason"]
    assert job["status"] == "fail"


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: f"{proof.job}-{proof.broken}")
def test_what_is_broken_fails_the_step_that_checks_it(proof: Proof, broken_jobs: dict[str, dict[str, Any]]) -> None:
    check(proof, broken_jobs[f"{X86}{proof.job}"])


def test_a_corrupt_snapshot_is_noticed(cli: Cli) -> None:
    check(SNAPSHOT, fly(cli, (SNAPSHOT,))[f"{X86}{SNAPSHOT.job}"])
