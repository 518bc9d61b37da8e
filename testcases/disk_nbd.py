"""The step disk-nbd."""

from __future__ import annotations

from typing import Final

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from testcases._disks import QEMU_FORMAT, check_guest_disk, disk_format

DEVICE: Final = "/dev/nbd0"

# $1 the format, $2 the image. The daemon is there before the kernel has the device: it is when its size is known.
_ATTACH: Final = f"""
modprobe nbd nbds_max=4 && qemu-nbd --fork --format="$1" --connect={DEVICE} "$2" || exit 1
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ "$(cat /sys/block/nbd0/size)" -gt 0 ] && cat /sys/block/nbd0/size && exit 0
  sleep 0.2
done
echo "{DEVICE} has no size"
exit 1
"""

# The daemon ends once it has written out what it holds.
_DETACH: Final = f"""
qemu-nbd --disconnect {DEVICE}
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  pidof qemu-nbd >/dev/null || exit 0
  sleep 0.2
done
echo "qemu-nbd does not end"
exit 1
"""


@step("disk-nbd", timeout_s=60)
def disk_nbd(ctx: StepContext) -> None:
    """dom0's kernel has the guest's disk image as a block device (*attach*), and lets go of it again (*detach*).

    So guests get a disk in a format that Xen's own backends do not know, where there is no QEMU to be one.
    """
    host, runvars = ctx.host(), ctx.runvars
    match ctx.args.get("mode"):
        case "attach":
            check_guest_disk(host, runvars)
            size = host.shell.script(_ATTACH, QEMU_FORMAT[disk_format(runvars)], runvars.require("disk_path")).stdout
            runvars.set("disk_nbd", DEVICE)
            ctx.log(f"{host.name}: {runvars.get('disk_path')} is {DEVICE}, {size.strip()} sectors")
        case "detach":
            host.shell.script(_DETACH)
            runvars.set("disk_nbd", "")
        case mode:
            raise LabBug(f"disk-nbd has no mode {mode!r}")
