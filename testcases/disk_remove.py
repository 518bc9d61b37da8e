"""The step disk-remove."""

from __future__ import annotations

from lab.flights.steps import StepContext, step
from testcases._disks import backing_path


@step("disk-remove", timeout_s=60)
def disk_remove(ctx: StepContext) -> None:
    """The guest's disk image is removed, so that only what leaked is left for leak-check to find."""
    path, base = ctx.runvars.require("disk_path"), backing_path(ctx.runvars)
    if device := ctx.runvars.get("disk_device"):
        ctx.host().shell.run("losetup", "--detach", device)
        ctx.runvars.set("disk_device", "")
    ctx.host().shell.run("rm", path, *([base] if base else []))
    ctx.runvars.set("disk_path", "")
    ctx.log(f"{ctx.host().name}: {path} removed")
