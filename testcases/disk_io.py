"""The step disk-io."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from testcases._disks import disk_size_mib
from testcases._guests import Guest

DEVICE: Final = "/dev/xvda"


@step("disk-io", timeout_s=600)
def disk_io(ctx: StepContext) -> None:
    """What the guest writes to its disk is what it reads: *write* puts random data there, *read* compares.

    The checksum is taken of the data, not of the disk, so that a disk which loses writes cannot agree with itself;
    before reading, the guest's page cache is dropped, so that the data comes from the disk. On a disk that held
    something before, the guest sees that first, and afterwards where it did not write.
    """
    guest, device = Guest(ctx, ctx.host()), ctx.args.get("device", DEVICE)
    size = disk_size_mib(ctx.runvars) // 2
    match ctx.args.get("mode"):
        case "write":
            _see_original(ctx, guest, device)
            ctx.runvars.set("disk_sha256", _write(guest, device, size))
            ctx.runvars.set("disk_written_mib", size)
            ctx.log(f"{guest.host.name}: the guest wrote {size} MiB with sha256 {ctx.runvars.get('disk_sha256')}")
        case "read":
            _read(ctx, guest, device)
        case mode:
            raise LabBug(f"disk-io has no mode {mode!r}")


def _write(guest: Guest, device: str, size: int) -> str:
    blocks = size * 16
    lines = guest.shell(
        # A small guest has no room for the data beside its disk, and making random bytes takes long: one MiB of them
        # is repeated, each time with another line before it, so that no two parts of the disk are alike.
        "dd if=/dev/urandom of=/random bs=64k count=16 iflag=fullblock 2>/dev/null; "
        f"data() {{ for part in $(seq {size}); do echo part $part; cat /random; done; }}; "
        f"data | dd bs=64k count={blocks} iflag=fullblock 2>/dev/null | sha256sum; "
        f"data | dd of={device} bs=64k count={blocks} iflag=fullblock conv=fsync 2>/dev/null && rm /random",
        timeout_s=240,
    )
    digest = parse_sha256(lines)
    if digest is None:
        raise guest.failure(f"the guest should tell the sha256 of {size} MiB, but said {lines!r}")
    return digest


def _see_original(ctx: StepContext, guest: Guest, device: str) -> None:
    original = ctx.runvars.get("disk_original_sha256")
    if original and (seen := parse_sha256(guest.shell(f"sha256sum <{device}", timeout_s=240))) != original:
        raise guest.failure(f"the guest should see what its disk held before, sha256 {original}, but sees {seen}")


def _read(ctx: StepContext, guest: Guest, device: str) -> None:
    written, size = ctx.runvars.require("disk_sha256"), ctx.runvars.integer("disk_written_mib", 0, low=1, high=1 << 20)
    tail = ctx.runvars.get("disk_tail_sha256")
    parts = [f"count={size * 16}", *([f"skip={(disk_size_mib(ctx.runvars) - 1) * 16}"] if tail else ())]
    lines = guest.shell(
        "sync; echo 3 >/proc/sys/vm/drop_caches; "
        + "; ".join(f"dd if={device} bs=64k {part} 2>/dev/null | sha256sum" for part in parts),
        timeout_s=240,
    )
    if (read := parse_sha256(lines[:1])) != written:
        raise guest.failure(f"the guest should read back what was written, sha256 {written}, but read {read}")
    if tail and (read := parse_sha256(lines[1:])) != tail:
        raise guest.failure(f"the guest should see the end of its disk as it was, sha256 {tail}, but read {read}")
    ctx.log(f"{guest.host.name}: the guest read {size} MiB as they were written")


def parse_sha256(lines: Sequence[str]) -> str | None:
    """The checksum that sha256sum printed as the last line; None when it is none."""
    found = re.fullmatch(r"([0-9a-f]{64})\s+-?\s*", lines[-1] + " ") if lines else None
    return found[1] if found else None
