"""The step disk-boot-check."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._guests import Guest


@step("disk-boot-check", timeout_s=60)
def disk_boot_check(ctx: StepContext) -> None:
    """The guest was started by its firmware from the disk this job made, and has that disk with both its partitions.

    Its kernel's arguments were on the disk and nowhere else: they hold the job's token.
    """
    guest, token = Guest(ctx, ctx.host()), ctx.runvars.require("disk_boot_token")
    arguments, *rest = guest.shell(
        "cat /proc/cmdline; cat /sys/class/dmi/id/bios_vendor; ls -d /sys/block/xvda/xvda?; "
        "cat /sys/block/xvda/xvda2/size"
    )
    if f"lab.boot={token}" not in arguments.split():
        raise guest.failure(f"the guest should have booted with lab.boot={token}, but has {arguments!r}"[:500])
    expected = (
        "Xen",
        *(f"/sys/block/xvda/xvda{number}" for number in (1, 2)),
        str(ctx.runvars.integer("disk_size", 0, low=1, high=1 << 20) * 2048),
    )
    if tuple(rest) != expected:
        raise guest.failure(f"the guest should have its firmware and partitions {expected!r}, but has {rest!r}"[:500])
    ctx.log(f"{guest.host.name}: started by its firmware from the disk with token {token}")
