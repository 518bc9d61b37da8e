"""What is different on Arm: guests of one kind, which can be neither saved nor moved."""

from __future__ import annotations

import pytest

from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles
from testcases._guests import guest_config
from testcases._readings import Reading
from testcases._support import SUPPORT

X86_HELP = """Usage xl [-vfNtT] <subcommand> [args]

xl full list of subcommands:

 create              Create a domain from config file <filename>
 save                Save a domain state to restore later
 migrate             Migrate a domain to another host
 restore             Restore a domain from a saved state
 usbctrl-attach      Create a virtual USB controller for a domain
"""
ARM_HELP = "".join(
    line for line in X86_HELP.splitlines(keepends=True) if line.split()[:1] not in (["save"], ["migrate"], ["restore"])
)


def readings(xl_help: str) -> dict[str, Reading]:
    said = {"help": xl_help, "info": "virt_caps : hvm"}
    return {name: Reading(exit_status=0, output=text) for name, text in said.items()}


@pytest.mark.parametrize(
    ("need", "words"), [("save-restore", "no save and no restore"), ("live-migration", "has no migrate")]
)
def test_xen_on_arm_moves_no_guests(need: str, words: str) -> None:
    support = SUPPORT[need]
    arm, x86 = Runvars({"arch": "arm64", "guest_kind": "pvh"}), Runvars({"arch": "amd64", "guest_kind": "pvh"})
    assert words in (support.missing(readings(ARM_HELP), arm) or "")
    assert support.missing(readings(X86_HELP), arm) is None  # once it can, it is tested
    assert support.missing(readings(ARM_HELP), x86) is None  # anywhere else, the step fails


def test_what_makes_an_x86_guest_boot_faster_is_not_told_to_one_on_arm() -> None:
    files = GuestFiles(kernel="/k", ramdisk="/r")
    for arch, told in (("amd64", True), ("arm64", False)):
        runvars = Runvars({"arch": arch, "guest_kind": "pvh"})
        config = guest_config(runvars, files, job="1.a", host_address="192.168.77.1")
        assert ("clearcpuid=4" in config.kernel_args) is told


def test_an_image_that_dom0s_kernel_serves_is_a_raw_device_to_the_toolstack() -> None:
    runvars = Runvars({"arch": "arm64", "guest_kind": "pvh", "disk_format": "qcow2", "disk_path": "/lab/x.qcow2"})
    files = GuestFiles(kernel="/k", ramdisk="/r")
    (disk,) = guest_config(runvars, files, job="1.a", host_address="192.168.77.1").disks
    assert (disk.path, disk.format) == ("/lab/x.qcow2", "qcow2")
    runvars.set("disk_nbd", "/dev/nbd0")
    (disk,) = guest_config(runvars, files, job="1.a", host_address="192.168.77.1").disks
    assert (disk.path, disk.format) == ("/dev/nbd0", "raw")
