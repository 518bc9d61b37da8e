"""The step disk-boot-create."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final

from lab.errors import ConfigError, Evidence, StepFailure
from lab.flights.boot_disk import (
    ARGUMENTS_AT,
    DATA_PARTITION,
    SECTOR,
    Partition,
    arguments_area,
    partition_table,
)
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._disks import QEMU_FORMAT, check_image, disk_format, disk_path, disk_subformat
from testcases._guests import SCRATCH, guest_config

# $1 the image's own boot disk, $2 a working copy, $3 the sector of the arguments (on stdin), $4 qemu-img's name of
# the format, $5 the guest's disk. dd writes into the copy: the disk itself is on a read-only medium.
_MAKE: Final = """
qemu-img convert -f raw -O raw "$1" "$2" && dd of="$2" bs=512 seek="$3" conv=notrunc 2>/dev/null || exit 1
if [ "$4" = raw ]; then mv "$2" "$5"; else qemu-img convert -f raw -O "$4" "$2" "$5"; fi
status=$?
rm -f "$2"
exit $status
"""


@step("disk-boot-create", timeout_s=120)
def disk_boot_create(ctx: StepContext) -> None:
    """dom0 has a disk of the job's format that boots the guest image; guests started later have no other way to boot.

    The kernel's arguments on it hold a token drawn here, by which disk-boot-check knows that it was this disk.
    """
    host, runvars = ctx.host(), ctx.runvars
    image = runvars.require("guest_image")
    files = ctx.guest_files(image)
    if not files.disk:
        raise ConfigError(f"image {image} has no disk to boot from", hint="guest-hvm-ARCH has one")
    wanted, path, token = disk_format(runvars), disk_path(runvars), secrets.token_hex(8)
    config = guest_config(runvars, files, job=ctx.job, host_address=host.address)
    host.shell.run(
        *("sh", "-c", _MAKE, "sh", files.disk, f"{SCRATCH}/guest-boot.raw", str(ARGUMENTS_AT)),
        *(QEMU_FORMAT[wanted], path),
        stdin=arguments_area((*config.kernel_args, f"lab.boot={token}")),
        timeout_s=90,
    )
    data = _data_partition(host, files.disk)
    size = data.start_mib + data.size_mib
    check_image(host, path, format_name=wanted, subformat=disk_subformat(runvars), size_mib=size)
    runvars.set("disk_path", path)
    runvars.set("disk_boot_token", token)
    runvars.set("disk_data_at", data.start_mib)
    runvars.set("disk_size", data.size_mib)
    if runvars.get("stubdom_image"):
        # a stub domain opens its disk as a device of its own, and there is none for a file
        device = host.shell.run("losetup", "--find", "--show", path).stdout.strip()
        runvars.set("disk_device", device)
    ctx.log(f"{host.name}: {path}, {wanted}, boots {image}, with {data.size_mib} MiB for data")


def _data_partition(host: HostAccess, disk: str) -> Partition:
    result = host.shell.script('head -c "$1" "$2" | base64', str(SECTOR), disk)
    try:
        found = partition_table(base64.b64decode(result.stdout))
    except binascii.Error:
        found = ()
    if len(found) < DATA_PARTITION:
        raise StepFailure(
            f"{host.name}: {disk} should have a partition for data, but has {len(found)} partitions",
            evidence=Evidence(host=host.name, command=result.command, output=result.output),
        )
    return found[DATA_PARTITION - 1]
