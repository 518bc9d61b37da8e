"""The step fault-inject: breaks something on purpose, to prove that the tests would notice."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lab.errors import ConfigError
from lab.flights.steps import SkipStep, StepContext, step
from testcases._disks import (
    MIB,
    QEMU_FORMAT,
    backing_path,
    data_offset_mib,
    disk_backing,
    disk_format,
    offset_in_image,
)
from testcases._guests import GUEST, SCRATCH, Guest, stubdom_of
from testcases._sabotage import kill_receiver
from testcases._xl_output import parse_xl_info
from testcases._xsm_faults import forget_to_enforce, loosen_policy, lose_labels, provoke_denial
from testcases.disk_create import IN_THE_ORIGINAL


@dataclass(frozen=True)
class Fault:
    """A way to break something, and which step has to notice.

    `point`: what there is to break at that point of the recipe: a guest that runs, or its disk before it is started.
    """

    inject: Callable[[StepContext], None]
    noticed_by: str
    point: str = "running"


_PANIC: Final = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"


@step("fault-inject", timeout_s=60)
def fault_inject(ctx: StepContext) -> None:
    """With the runvar `fault`: that is broken now, and a later step has to fail. Otherwise nothing is."""
    name = ctx.runvars.get("fault")
    if not name:
        raise SkipStep("no fault was asked for")
    fault, point = find_fault(name), ctx.args.get("point", "running")
    if fault.point != point:
        raise SkipStep(f"{name} breaks something at another point of the recipe")
    fault.inject(ctx)
    ctx.log(f"broken on purpose: {name}; to be noticed by {fault.noticed_by}")


def find_fault(name: str) -> Fault:
    """The fault of this name, or `ConfigError` with the names there are."""
    try:
        return FAULTS[name]
    except KeyError:
        raise ConfigError(f"unknown fault {name!r}", hint=f"there are: {', '.join(sorted(FAULTS))}") from None


def _corrupt_disk(ctx: StepContext) -> None:
    path, wanted = _needed(ctx, "disk_path", "a disk"), disk_format(ctx.runvars)
    at = (data_offset_mib(ctx.runvars) + 1) * MIB + 12345
    _overwrite(ctx, path, offset_in_image(ctx.host(), path, wanted, at), "CORRUPTED-BY-LAB")


def _corrupt_backing(ctx: StepContext) -> None:
    _needed(ctx, "disk_backing", "a backing file")
    path, wanted = backing_path(ctx.runvars), disk_backing(ctx.runvars)
    _overwrite(ctx, path, offset_in_image(ctx.host(), path, wanted, IN_THE_ORIGINAL), "CORRUPTED-BY-LAB")


def _corrupt_snapshot(ctx: StepContext) -> None:
    # where the snapshot's data are, no tool tells any more once the guest has written
    at = _needed(ctx, "disk_snapshot_at", "a snapshot in a file of its own")
    _overwrite(ctx, _needed(ctx, "disk_path", "a disk"), int(at), "CORRUPTED-BY-LAB")


def _lie_in_header(ctx: StepContext) -> None:
    path = _needed(ctx, "disk_path", "a disk")
    if disk_format(ctx.runvars) != "qcow2":
        raise ConfigError("fault disk-header-lies: this job's disk is no qcow2", hint="use it with disk_format=qcow2")
    name, at = "/etc/passwd", 2048
    _overwrite(ctx, path, at, name)
    _overwrite(ctx, path, 8, "".join(f"\\{byte:03o}" for byte in struct.pack(">QI", at, len(name))))


def _needed(ctx: StepContext, runvar: str, what: str) -> str:
    """The runvar's value; `ConfigError` when the job has no such thing to break."""
    if not (value := ctx.runvars.get(runvar)):
        fault = ctx.runvars.get("fault")
        raise ConfigError(f"fault {fault}: this job's guest has not {what}", hint="see testcases/README.md")
    return value


def _overwrite(ctx: StepContext, path: str, at: int, text: str) -> None:
    """Write text of ours (with printf's escapes) into the middle of a file."""
    script = f"printf '{text}' | dd of=\"$1\" bs=1 seek=\"$2\" conv=notrunc 2>&1"
    ctx.host().shell.script(script, path, str(at))


def _differ_on_target(ctx: StepContext) -> None:
    path = _needed(ctx, "disk_path", "a disk")
    if ctx.runvars.get("disk_access") != "ro":
        raise ConfigError("fault target-disk-differs: the disk is not shared", hint="use it with test-migrate-pair")
    ctx.host("dst_host").shell.script(
        'cp "$1" "$2" && printf CORRUPTED-BY-LAB | dd of="$2" bs=1 seek=1234567 conv=notrunc 2>&1 && '
        'mount --bind "$2" "$1"',
        path, f"{SCRATCH}/differs",
    )  # fmt: skip


def _kill_receiver(ctx: StepContext) -> None:
    if "dst_host" not in ctx.roles:
        raise ConfigError("fault receiver-killed: the job has no host to migrate to", hint="use it with a pair")
    kill_receiver(ctx.host("dst_host"))


def _crash_guest(ctx: StepContext) -> None:
    # in the background: the guest's agent is to answer before the guest dies
    Guest(ctx, ctx.host()).shell(f"(sleep 1; {_PANIC}) >/dev/null 2>&1 &")


def _lose_guest(ctx: StepContext) -> None:
    ctx.host().shell.script(
        "(tries=0; until pidof libxl-save-helper || [ $tries -gt 3000 ]; do sleep 0.2; tries=$((tries + 1)); done; "
        'xl destroy "$1") </dev/null >/dev/null 2>&1 &',
        GUEST,
    )


def _close_target(ctx: StepContext) -> None:
    for target in _targets(ctx):
        # it still answers the lab, which comes from dom0 itself
        ctx.host(target).shell.script(
            "sed -i 's/^listen_addr.*/listen_addr = \"127.0.0.1\"/' /etc/libvirt/libvirtd.conf && "
            "/etc/lab/services/libvirtd"
        )


# A definition is all it takes: libvirt has one domain of a name, running or not.
_NAMESAKE: Final = f"""
cat >/run/lab-namesake.xml <<END
<domain type='xen'><name>{GUEST}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='xenpv'>linux</type><kernel>/none</kernel></os></domain>
END
virsh -c xen:///system define /run/lab-namesake.xml
"""


def _take_name(ctx: StepContext) -> None:
    for target in _targets(ctx):
        ctx.host(target).shell.script(_NAMESAKE)


def _targets(ctx: StepContext) -> list[str]:
    """The roles a guest may move to; `ConfigError` when libvirt moves nothing in this job."""
    targets = [role for role in ctx.roles if role != ctx.role]
    if not targets or ctx.runvars.get("toolstack") != "libvirt":
        raise ConfigError("this fault needs a migration by libvirt", hint="use it with recipe test-libvirt-pair")
    return targets


def _pause_guest(ctx: StepContext) -> None:
    ctx.host().shell.run("xl", "pause", GUEST)


def _corrupt_memory(ctx: StepContext) -> None:
    # the agent is the guest's first process, and its pattern its largest mapping; a word in the middle is changed
    Guest(ctx, ctx.host()).shell(
        "most=0; while read -r range rest; do from=$((0x${range%-*})); size=$((0x${range#*-} - from)); "
        "[ $size -gt $most ] && most=$size && at=$((from + size / 2 + 64)); done </proc/1/maps; "
        "printf LABFAULT | dd of=/proc/1/mem bs=1 seek=$at conv=notrunc 2>&1",
    )


def _corrupt_churn(ctx: StepContext) -> None:
    # the area that the agent writes all the time is its only shared mapping
    Guest(ctx, ctx.host()).shell(
        "range=$(grep /dev/zero /proc/1/maps); at=$((0x${range%%-*} + 40000)); "
        "printf LABFAULT | dd of=/proc/1/mem bs=1 seek=$at conv=notrunc 2>&1",
    )


def _leak(ctx: StepContext) -> None:
    ctx.host().shell.script(
        f"echo stray >{SCRATCH}/leaked-by-lab; losetup -f {SCRATCH}/leaked-by-lab; ip link add stray type bridge; "
        "setsid sleep 86400 </dev/null >/dev/null 2>&1 &"
    )


def _crash_dom0(ctx: StepContext) -> None:
    ctx.host().shell.script(f"(sleep 1; {_PANIC}) </dev/null >/dev/null 2>&1 &")


def _crash_xen(ctx: StepContext) -> None:
    shell = ctx.host().shell
    if "nmi=fatal" not in parse_xl_info(shell.run("xl", "info").stdout).get("xen_commandline", "").split():
        raise ConfigError("fault xen-crash: Xen survives an NMI here", hint="--set xen_boot_append=nmi=fatal")
    shell.script("(sleep 1; xl debug-keys N) </dev/null >/dev/null 2>&1 &")


def _lose_vcpu(ctx: StepContext) -> None:
    Guest(ctx, ctx.host()).shell("echo 0 >/sys/devices/system/cpu/cpu1/online")


def _revert_patches(ctx: StepContext) -> None:
    ctx.host().shell.script("for name in xen_bye_world xen_hello_world; do xen-livepatch revert $name || exit; done")


def _corrupt_boot_disk(ctx: StepContext) -> None:
    # as the guest sees it, whatever the format: its first sector, with the boot code and the partitions
    ctx.host().shell.run(
        *("qemu-io", "-f", QEMU_FORMAT[disk_format(ctx.runvars)], "-c", "write -q -P 0 0 512"),
        ctx.runvars.require("disk_path"),
    )


def _lose_stubdom(ctx: StepContext) -> None:
    name = stubdom_of(ctx.runvars)
    if name is None:
        raise ConfigError("fault stubdom-lost: this job's guest has no stub domain", hint="use it with test-stubdom")
    ctx.host().shell.run("xl", "destroy", name)


FAULTS: Final[Mapping[str, Fault]] = {
    "backing-corrupt": Fault(_corrupt_backing, "disk-verify"),
    "boot-corrupt": Fault(_corrupt_boot_disk, "guest-start", point="disk"),
    "churn-corrupt": Fault(_corrupt_churn, "the next step that moves the guest"),
    "disk-corrupt": Fault(_corrupt_disk, "disk-io/read"),
    "disk-header-lies": Fault(_lie_in_header, "the next step that opens the image"),
    "guest-crash": Fault(_crash_guest, "the next step that moves or uses the guest"),
    "guest-lost": Fault(_lose_guest, "the next step that moves the guest"),
    "guest-pause": Fault(_pause_guest, "the next step that moves or uses the guest"),
    "migration-refused": Fault(_close_target, "the next step that moves the guest"),
    "name-taken": Fault(_take_name, "the next step that moves the guest"),
    "memory-corrupt": Fault(_corrupt_memory, "the next step that moves the guest"),
    "leak": Fault(_leak, "leak-check/check"),
    "receiver-killed": Fault(_kill_receiver, "guest-migrate"),
    "snapshot-corrupt": Fault(_corrupt_snapshot, "disk-verify"),
    "stubdom-lost": Fault(_lose_stubdom, "the next step that moves or ends the guest"),
    "target-disk-differs": Fault(_differ_on_target, "disk-io/dst_host"),
    "xsm-permissive": Fault(forget_to_enforce, "xsm-prove"),
    "xsm-loosened": Fault(loosen_policy, "xsm-prove"),
    "xsm-label": Fault(lose_labels, "xsm-prove"),
    "xsm-denial": Fault(provoke_denial, "xsm-audit"),
    "dom0-crash": Fault(_crash_dom0, "whatever step comes next"),
    "xen-crash": Fault(_crash_xen, "whatever step comes next"),
    "vcpu-lost": Fault(_lose_vcpu, "guest-vcpus"),
    "livepatch-lost": Fault(_revert_patches, "livepatch/replace"),
}
"""Every value the runvar `fault` may have; the table in testcases/README.md says what each one proves."""
