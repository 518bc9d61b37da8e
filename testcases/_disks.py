"""Disk images of a guest as dom0's qemu-img sees them."""

from __future__ import annotations

import json
from typing import Final

from lab.errors import Evidence, StepFailure
from lab.flights.runvars import Runvars
from lab.hosts.protocols import HostAccess
from testcases._guests import DISK_FORMATS, SCRATCH

QEMU_FORMAT: Final = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
"""Our word to qemu-img's."""

MIB: Final = 1 << 20


def disk_format(runvars: Runvars) -> str:
    """The job's disk format: raw, qcow2 or vhd."""
    return runvars.choice("disk_format", DISK_FORMATS)


def disk_path(runvars: Runvars) -> str:
    """Where dom0 has the guest's disk."""
    return f"{SCRATCH}/guest.{disk_format(runvars)}"


def disk_size_mib(runvars: Runvars) -> int:
    """The size of the guest's disk; half of it is written and verified."""
    return runvars.integer("disk_size", 16, low=4, high=1 << 20)


def image_problem(info: str, *, format_name: str, size_mib: int) -> str | None:
    """What is wrong with an image by `qemu-img info --output=json`; None when its format and size are as asked.

    A VHD may be a little larger than asked: its size is a product of cylinders, heads and sectors.
    """
    try:
        image = json.loads(info)
        seen_format, seen_size = image["format"], int(image["virtual-size"])
    except (ValueError, TypeError, KeyError):
        return f"qemu-img cannot tell what it is: {info.strip()[:200]!r}"
    if seen_format != QEMU_FORMAT[format_name]:
        return f"its format should be {QEMU_FORMAT[format_name]}, but is {seen_format}"
    slack = 2 * MIB if format_name == "vhd" else 0
    if not size_mib * MIB <= seen_size <= size_mib * MIB + slack:
        return f"its size should be {size_mib * MIB} bytes, but is {seen_size}"
    return None


def file_offset(disk_map: str, guest_offset: int) -> int | None:
    """Where in the image file a byte of the guest's disk lies, by `qemu-img map --output=json`; None: nowhere."""
    for extent in json.loads(disk_map):
        start, length = int(extent["start"]), int(extent["length"])
        if start <= guest_offset < start + length and "offset" in extent:
            return int(extent["offset"]) + guest_offset - start
    return None


def check_image(host: HostAccess, path: str, *, format_name: str, size_mib: int) -> None:
    """`StepFailure` unless the image is what was asked for."""
    result = host.shell.run("qemu-img", "info", "-U", "--output=json", path, check=False)
    if problem := image_problem(result.stdout, format_name=format_name, size_mib=size_mib):
        raise StepFailure(
            f"{host.name}: image {path}: {problem}",
            evidence=Evidence(
                host=host.name, command=result.command, exit_status=result.exit_status, output=result.output
            ),
        )
