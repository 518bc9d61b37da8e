"""The step disk-verify."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._disks import (
    QEMU_FORMAT,
    SNAPSHOT,
    backing_path,
    check_image,
    data_offset_mib,
    disk_format,
    disk_size_mib,
    disk_snapshot,
    disk_subformat,
    image_failure,
    parse_sha256s,
)
from testcases._guests import SCRATCH, Guest

# $1 the image, $2 its format for qemu-img, $3 a file to unpack it to, $4 how many bytes the guest wrote, $5 a snapshot
# or nothing, $6 the number (from 1) of the first byte it wrote. Prints the checksums of what the guest wrote, of the
# last MiB, and of the whole disk at the snapshot.
_UNPACK: Final = """
trap 'rm -f "$3"' EXIT
qemu-img convert -f "$2" -O raw "$1" "$3" || exit 1
tail -c +"$6" "$3" | head -c "$4" | sha256sum && tail -c 1048576 "$3" | sha256sum || exit 1
[ -z "$5" ] || { qemu-img convert -f "$2" -l "snapshot.name=$5" -O raw "$1" "$3" && sha256sum <"$3"; }
"""


@step("disk-verify", timeout_s=300)
def disk_verify(ctx: StepContext) -> None:
    """Seen from dom0, after the guest has gone: the image is sound, and holds what the guest wrote.

    What was there before and was not to be written is unchanged: the disk's end, its snapshot, its backing file.
    """
    host, runvars = ctx.host(), ctx.runvars
    Guest(ctx, host).require_none("before it is verified,")
    path, wanted = runvars.require("disk_path"), disk_format(runvars)
    size = runvars.integer("disk_written_mib", 0, low=1, high=1 << 20)
    subformat, at = disk_subformat(runvars), data_offset_mib(runvars)
    check_image(host, path, format_name=wanted, subformat=subformat, size_mib=at + disk_size_mib(runvars))
    if wanted == "qcow2":  # the only one of the formats whose structure qemu-img can check
        result = host.shell.run("qemu-img", "check", "-f", "qcow2", path, timeout_s=120, check=False)
        if result.exit_status != 0:
            raise image_failure(result, f"`qemu-img check {path}` should find nothing wrong, but says so")
    snapshot = SNAPSHOT if disk_snapshot(runvars) else ""
    raw = f"{SCRATCH}/disk-verify.raw"
    result = host.shell.script(
        *(_UNPACK, path, QEMU_FORMAT[wanted], raw, str(size << 20), snapshot, str((at << 20) + 1)),
        timeout_s=240,
        check=False,
    )
    written, tail, before = [*parse_sha256s(result.stdout), None, None, None][:3]
    for what, wanted_sum, found in (
        ("hold what the guest wrote", runvars.require("disk_sha256"), written),
        ("end as it did before the guest wrote", runvars.get("disk_tail_sha256"), tail),
        (f"have in its snapshot {snapshot!r} what was there", snapshot and runvars.get("disk_original_sha256"), before),
    ):
        if wanted_sum and found != wanted_sum:
            raise image_failure(result, f"{path} should {what}, sha256 {wanted_sum}, but has {found}")
    _check_backing(ctx, host)
    ctx.log(f"{host.name}: {path} holds the {size} MiB the guest wrote" + (", the snapshot is whole" if before else ""))


def _check_backing(ctx: StepContext, host: HostAccess) -> None:
    if not (base := backing_path(ctx.runvars)):
        return
    result = host.shell.run("sha256sum", base, check=False)
    wanted = ctx.runvars.require("disk_backing_sha256")
    if wanted not in parse_sha256s(result.stdout):
        raise image_failure(result, f"the backing file {base} should be unchanged, sha256 {wanted}, but is not")
    ctx.log(f"{host.name}: the backing file {base} is unchanged")
