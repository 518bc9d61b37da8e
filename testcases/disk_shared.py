"""The step disk-shared."""

from __future__ import annotations

from typing import Final

from lab.errors import InfraError
from lab.flights.steps import StepContext, step
from testcases._disks import check_headers, parse_sha256s

SIZE_MIB: Final = 4
"""So much of it is read and compared."""


@step("disk-shared", timeout_s=60)
def disk_shared(ctx: StepContext) -> None:
    """All hosts of the job have the same image at the same place; guests started later get it, to be read only.

    A guest that migrates finds its disk again on the other host. There is no storage that two emulated hosts share;
    what they have in common, bit by bit, is the file system the lab hands to each: the image is a file of that.
    """
    path = ctx.guest_files(ctx.runvars.require("guest_image")).kernel
    sums = {}
    for role in ctx.roles:
        host = ctx.host(role)
        check_headers(host, path, "raw")
        result = host.shell.script(f'head -c {SIZE_MIB << 20} "$1" | sha256sum', path)
        sums[host.name] = parse_sha256s(result.stdout)
    found = {one[0] if len(one) == 1 else "none" for one in sums.values()}
    if len(found) != 1 or "none" in found:
        raise InfraError(f"{path} should be the same on all hosts, but is not: {sums}")
    for name, value in (
        ("disk_path", path), ("disk_format", "raw"), ("disk_access", "ro"), ("disk_sha256", found.pop()),
        ("disk_written_mib", SIZE_MIB),
    ):  # fmt: skip
        ctx.runvars.set(name, value)
    ctx.log(f"{', '.join(sums)}: {path} is the same")
