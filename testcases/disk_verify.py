"""The step disk-verify."""

from __future__ import annotations

from lab.errors import Evidence, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import CommandResult
from testcases._disks import QEMU_FORMAT, check_image, disk_format, disk_size_mib
from testcases._guests import SCRATCH, Guest
from testcases.disk_io import parse_sha256


@step("disk-verify", timeout_s=300)
def disk_verify(ctx: StepContext) -> None:
    """Seen from dom0, after the guest has gone: the image is sound, and holds what the guest wrote."""
    host = ctx.host()
    Guest(ctx, host).require_none("before it is verified,")
    path, wanted = ctx.runvars.require("disk_path"), disk_format(ctx.runvars)
    written = ctx.runvars.require("disk_sha256")
    size = ctx.runvars.integer("disk_written_mib", 0, low=1, high=1 << 20)
    check_image(host, path, format_name=wanted, size_mib=disk_size_mib(ctx.runvars))
    if wanted == "qcow2":  # the only one of the formats whose structure qemu-img can check
        result = host.shell.run("qemu-img", "check", "-f", "qcow2", path, timeout_s=120, check=False)
        if result.exit_status != 0:
            raise _failure(result, f"`qemu-img check {path}` should find nothing wrong, but says so")
    raw = f"{SCRATCH}/disk-verify.raw"
    result = host.shell.script(
        'trap \'rm -f "$3"\' EXIT; qemu-img convert -f "$1" -O raw "$2" "$3" && head -c "$4" "$3" | sha256sum',
        *(QEMU_FORMAT[wanted], path, raw, str(size << 20)),
        timeout_s=240,
        check=False,
    )
    if (found := parse_sha256(result.stdout.splitlines())) != written:
        raise _failure(result, f"{path} should hold what the guest wrote, sha256 {written}, but has {found}")
    ctx.log(f"{host.name}: {path} holds the {size} MiB the guest wrote")


def _failure(result: CommandResult, message: str) -> StepFailure:
    return StepFailure(
        f"{result.host}: {message}",
        evidence=Evidence(
            host=result.host, command=result.command, exit_status=result.exit_status, output=result.output
        ),
    )
