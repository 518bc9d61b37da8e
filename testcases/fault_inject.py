"""The step fault-inject: breaks something on purpose, to prove that the tests would notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lab.errors import ConfigError, StepFailure
from lab.flights.steps import SkipStep, StepContext, step
from testcases._disks import MIB, file_offset
from testcases._guests import GUEST, SCRATCH, Guest


@dataclass(frozen=True)
class Fault:
    """A way to break something, and which step has to notice."""

    inject: Callable[[StepContext], None]
    noticed_by: str


_PANIC: Final = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"


@step("fault-inject", timeout_s=60)
def fault_inject(ctx: StepContext) -> None:
    """With the runvar `fault`: that is broken now, while the guest runs; a later step has to fail. Else nothing."""
    name = ctx.runvars.get("fault")
    if not name:
        raise SkipStep("no fault was asked for")
    fault = find_fault(name)
    fault.inject(ctx)
    ctx.log(f"broken on purpose: {name}; to be noticed by {fault.noticed_by}")


def find_fault(name: str) -> Fault:
    """The fault of this name, or `ConfigError` with the names there are."""
    try:
        return FAULTS[name]
    except KeyError:
        raise ConfigError(f"unknown fault {name!r}", hint=f"there are: {', '.join(sorted(FAULTS))}") from None


def _corrupt_disk(ctx: StepContext) -> None:
    shell, path = ctx.host().shell, ctx.runvars.get("disk_path")
    if not path:
        raise ConfigError("fault disk-corrupt: this job's guest has no disk", hint="use it with recipe test-disk")
    disk_map = shell.run("qemu-img", "map", "-U", "--output=json", path).stdout
    offset = file_offset(disk_map, MIB + 12345)
    if offset is None:
        raise StepFailure(f"{ctx.host().name}: {path} should have what the guest wrote at 1 MiB, but has nothing there")
    shell.script(
        "printf CORRUPTED-BY-LAB | dd of=\"$1\" bs=1 seek=\"$2\" conv=notrunc 2>&1", path, str(offset)
    )


def _crash_guest(ctx: StepContext) -> None:
    # in the background: the guest's agent is to answer before the guest dies
    Guest(ctx, ctx.host()).shell(f"(sleep 1; {_PANIC}) >/dev/null 2>&1 &")


def _lose_guest(ctx: StepContext) -> None:
    ctx.host().shell.script(
        "(tries=0; until pidof libxl-save-helper || [ $tries -gt 3000 ]; do sleep 0.2; tries=$((tries + 1)); done; "
        'xl destroy "$1") </dev/null >/dev/null 2>&1 &',
        GUEST,
    )


def _stop_libvirtd(ctx: StepContext) -> None:
    for target in _targets(ctx):
        ctx.host(target).shell.script('kill "$(cat /run/libvirtd.pid)" && sleep 1; ! pidof libvirtd')


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


def _leak(ctx: StepContext) -> None:
    ctx.host().shell.script(
        f"echo stray >{SCRATCH}/leaked-by-lab; setsid sleep 86400 </dev/null >/dev/null 2>&1 &"
    )


def _crash_dom0(ctx: StepContext) -> None:
    ctx.host().shell.script(f"(sleep 1; {_PANIC}) </dev/null >/dev/null 2>&1 &")


FAULTS: Final[Mapping[str, Fault]] = {
    "disk-corrupt": Fault(_corrupt_disk, "disk-io/read"),
    "guest-crash": Fault(_crash_guest, "the next step that moves or uses the guest"),
    "guest-lost": Fault(_lose_guest, "the next step that moves the guest"),
    "guest-pause": Fault(_pause_guest, "the next step that moves or uses the guest"),
    "libvirtd-stopped": Fault(_stop_libvirtd, "the next step that moves the guest"),
    "name-taken": Fault(_take_name, "the next step that moves the guest"),
    "memory-corrupt": Fault(_corrupt_memory, "the next step that moves the guest"),
    "leak": Fault(_leak, "leak-check/check"),
    "dom0-crash": Fault(_crash_dom0, "whatever step comes next"),
}
"""Every value the runvar `fault` may have; the table in testcases/README.md says what each one proves."""
