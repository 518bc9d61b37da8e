"""The step disk-create."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._disks import QEMU_FORMAT, check_image, disk_format, disk_path, disk_size_mib


@step("disk-create", timeout_s=120)
def disk_create(ctx: StepContext) -> None:
    """dom0 has a new, empty disk image of the format and size the job asks for; guests started later get it."""
    host = ctx.host()
    wanted, path, size = disk_format(ctx.runvars), disk_path(ctx.runvars), disk_size_mib(ctx.runvars)
    host.shell.run("qemu-img", "create", "-q", "-f", QEMU_FORMAT[wanted], path, f"{size}M")
    check_image(host, path, format_name=wanted, size_mib=size)
    ctx.runvars.set("disk_path", path)
    ctx.log(f"{host.name}: {path}, {wanted}, {size} MiB")
