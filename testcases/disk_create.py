"""The step disk-create."""

from __future__ import annotations

from typing import Final

from lab.errors import InfraError
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._disks import (
    QEMU_FORMAT,
    SNAPSHOT,
    backing_path,
    check_headers,
    check_image,
    disk_backing,
    disk_format,
    disk_path,
    disk_size_mib,
    disk_snapshot,
    disk_subformat,
    offset_in_image,
    parse_sha256s,
)
from testcases._guests import SCRATCH

ORIGINAL: Final = f"{SCRATCH}/original.raw"
IN_THE_ORIGINAL: Final = 12345
"""A byte of the disk's original content that the guest writes over."""

# $1 a new raw disk, $2 its size in MiB: something at its beginning, which the guest writes over, and the same at its
# end, which it does not. Prints the checksums of the whole and of the last MiB.
_MAKE_ORIGINAL: Final = """
head -c 1048576 /dev/urandom >"$1" && dd if="$1" of="$1" bs=1048576 count=1 seek=$(($2 - 1)) conv=notrunc 2>/dev/null &&
sha256sum <"$1" && tail -c 1048576 "$1" | sha256sum
"""


@step("disk-create", timeout_s=120)
def disk_create(ctx: StepContext) -> None:
    """dom0 has a disk image of the format and size the job asks for; guests started later get it.

    It is empty, or, with a backing file or a snapshot, holds something that what the guest writes must not change.
    """
    host, runvars = ctx.host(), ctx.runvars
    wanted, path, size, subformat = (
        disk_format(runvars), disk_path(runvars), disk_size_mib(runvars), disk_subformat(runvars)
    )  # fmt: skip
    options: tuple[str, ...] = ("-o", f"subformat={subformat}") if subformat else ()
    backing, snapshot = disk_backing(runvars), disk_snapshot(runvars)
    if backing or snapshot:
        _make_original(ctx, host, backing_path(runvars) or path, backing or wanted)
    if backing:
        base = backing_path(runvars)
        check_headers(host, base, backing)
        options = ("-b", base.rpartition("/")[2], "-F", QEMU_FORMAT[backing])
        ctx.runvars.set("disk_backing_sha256", parse_sha256s(host.shell.run("sha256sum", base).stdout)[0])
    if backing or not snapshot:
        host.shell.run("qemu-img", "create", "-q", "-f", QEMU_FORMAT[wanted], *options, path, f"{size}M")
    check_image(host, path, format_name=wanted, subformat=subformat, size_mib=size)
    if snapshot:
        host.shell.run("qemu-img", "snapshot", "-c", SNAPSHOT, path)
        if not backing:
            runvars.set("disk_snapshot_at", offset_in_image(host, path, wanted, IN_THE_ORIGINAL))
    runvars.set("disk_path", path)
    more = [subformat, f"on a {backing} backing file" if backing else "", "with a snapshot" if snapshot else ""]
    ctx.log(f"{host.name}: {path}, {wanted}, {size} MiB" + "".join(f", {one}" for one in more if one))


def _make_original(ctx: StepContext, host: HostAccess, path: str, format_name: str) -> None:
    """An image at `path` with content of its own, whose checksums become runvars."""
    result = host.shell.script(_MAKE_ORIGINAL, ORIGINAL, str(disk_size_mib(ctx.runvars)))
    sums = parse_sha256s(result.stdout)
    if len(sums) != 2:
        raise InfraError(f"{host.name}: sha256sum should print two checksums, but printed {result.output[:200]!r}")
    for name, value in zip(("disk_original_sha256", "disk_tail_sha256"), sums, strict=True):
        ctx.runvars.set(name, value)
    if format_name == "raw":
        host.shell.run("mv", ORIGINAL, path)
    else:
        host.shell.run("qemu-img", "convert", "-f", "raw", "-O", QEMU_FORMAT[format_name], ORIGINAL, path)
        host.shell.run("rm", ORIGINAL)
