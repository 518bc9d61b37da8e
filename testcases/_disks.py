"""Disk images of a guest: what the job wants of them, and what dom0 finds in them.

No program opens an image before `check_headers` has: an image can name other files, and it may lie about its format.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Final

from lab.errors import ConfigError, Evidence, InfraError, StepFailure
from lab.flights.image_headers import DEEPEST_CHAIN, FOOTER_BYTES, HEAD_BYTES, ImageBytes, ImageHeader, judge_image
from lab.flights.runvars import Runvars
from lab.hosts.protocols import CommandResult, HostAccess
from testcases._guests import DISK_FORMATS, SCRATCH

QEMU_FORMAT: Final = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
"""Our word to qemu-img's."""

SUBFORMATS: Final = ("dynamic", "fixed")
"""Kinds of VHD."""

MIB: Final = 1 << 20
SNAPSHOT: Final = "before"
"""The internal snapshot that is made before the guest writes."""


def disk_format(runvars: Runvars) -> str:
    """The job's disk format: raw, qcow2 or vhd."""
    return runvars.choice("disk_format", DISK_FORMATS)


def disk_subformat(runvars: Runvars) -> str:
    """The kind of a VHD: dynamic unless the job says otherwise; nothing for another format."""
    if disk_format(runvars) == "vhd":
        return runvars.choice("disk_subformat", SUBFORMATS) if runvars.get("disk_subformat") else SUBFORMATS[0]
    return _only_for("vhd", runvars, "disk_subformat")


def disk_backing(runvars: Runvars) -> str:
    """The format of the file below a qcow2; nothing when it stands alone."""
    if disk_format(runvars) == "qcow2" and runvars.get("disk_backing"):
        return runvars.choice("disk_backing", ("raw", "qcow2"))
    return _only_for("qcow2", runvars, "disk_backing")


def disk_snapshot(runvars: Runvars) -> bool:
    """Whether a qcow2 gets an internal snapshot before the guest writes."""
    if disk_format(runvars) == "qcow2":
        return runvars.get("disk_snapshot", "no") != "no" and runvars.choice("disk_snapshot", ("no", "yes")) == "yes"
    return bool(_only_for("qcow2", runvars, "disk_snapshot"))


def _only_for(wanted: str, runvars: Runvars, name: str) -> str:
    if runvars.get(name, "no") not in {"", "no"} and disk_format(runvars) != wanted:
        raise ConfigError(f"runvar {name}: a disk in format {disk_format(runvars)} has none", hint=f"only {wanted} has")
    return ""


def disk_path(runvars: Runvars) -> str:
    """Where dom0 has the guest's disk."""
    return f"{SCRATCH}/guest.{disk_format(runvars)}"


def backing_path(runvars: Runvars) -> str:
    """Where dom0 has the file below it; nothing when there is none."""
    backing = disk_backing(runvars)
    return f"{SCRATCH}/base.{backing}" if backing else ""


def disk_size_mib(runvars: Runvars) -> int:
    """The size of the guest's disk; half of it is written and verified."""
    return runvars.integer("disk_size", 16, low=4, high=1 << 20)


def data_offset_mib(runvars: Runvars) -> int:
    """Where on the guest's disk its data begin: behind what it boots from, if it boots from it."""
    return runvars.integer("disk_data_at", 0, low=0, high=1 << 20)


# --- headers

# $1 the image. A symbolic link could lead out of its folder.
_READ: Final = f"""
[ -f "$1" ] && [ ! -L "$1" ] || {{ echo "not a plain file"; exit 1; }}
stat -c %s "$1" && head -c {HEAD_BYTES} "$1" | base64 && echo - && tail -c {FOOTER_BYTES} "$1" | base64
"""


def check_headers(host: HostAccess, path: str, declared: str) -> ImageHeader:
    """The header of an image and, unseen, of all it stands on; `StepFailure` if one of them must not be opened."""
    first = header = _check_header(host, path, declared)
    for _ in range(DEEPEST_CHAIN):
        if not header.backing_file:
            return first
        path = f"{path.rpartition('/')[0]}/{header.backing_file}"
        header = _check_header(host, path, header.backing_format)
    raise StepFailure(f"{host.name}: image {path} must not be opened: more than {DEEPEST_CHAIN} images stand below it")


def _check_header(host: HostAccess, path: str, declared: str) -> ImageHeader:
    result = host.shell.script(_READ, path, check=False)
    if result.exit_status != 0:
        raise image_failure(result, f"image {path} must not be opened: it is {result.stdout.strip()[:100]}")
    verdict = judge_image(parse_image_bytes(result.stdout), declared)
    if not isinstance(verdict, ImageHeader):
        raise image_failure(result, f"image {path} must not be opened: {verdict.reason}")
    return verdict


def parse_image_bytes(output: str) -> ImageBytes:
    """The size, head and tail that the host printed."""
    size, _, rest = output.partition("\n")
    head, _, tail = rest.partition("\n-\n")
    try:
        return ImageBytes(head=base64.b64decode(head), tail=base64.b64decode(tail), size=int(size))
    except (binascii.Error, ValueError) as error:
        raise InfraError(f"the beginning of an image cannot be read from {output[:80]!r}") from error


def check_guest_disk(host: HostAccess, runvars: Runvars) -> None:
    """Before a toolstack is given the guest's disk, if it has one: see `check_headers`."""
    if path := runvars.get("disk_path"):
        check_headers(host, path, disk_format(runvars))


# --- what qemu-img says


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
        # what lies deeper is in a backing file
        if start <= guest_offset < start + length and "offset" in extent and int(extent.get("depth", 0)) == 0:
            return int(extent["offset"]) + guest_offset - start
    return None


def offset_in_image(host: HostAccess, path: str, format_name: str, guest_offset: int) -> int:
    """Where in the image a byte of the guest's disk lies; `StepFailure` when it is not there."""
    found = host.shell.run("qemu-img", "map", "-U", "-f", QEMU_FORMAT[format_name], "--output=json", path).stdout
    offset = file_offset(found, guest_offset)
    if offset is None:
        raise StepFailure(f"{host.name}: {path} should have something at {guest_offset}, but has nothing there")
    return offset


def check_image(host: HostAccess, path: str, *, format_name: str, subformat: str = "", size_mib: int) -> None:
    """`StepFailure` unless the image is what was asked for, by its header and by qemu-img."""
    header = check_headers(host, path, format_name)
    if subformat != header.subformat:
        raise StepFailure(f"{host.name}: image {path} should be a {subformat} VHD, but is a {header.subformat} one")
    result = host.shell.run(
        "qemu-img", "info", "-U", "-f", QEMU_FORMAT[format_name], "--output=json", path, check=False
    )
    if problem := image_problem(result.stdout, format_name=format_name, size_mib=size_mib):
        raise image_failure(result, f"image {path}: {problem}")


def image_failure(result: CommandResult, message: str) -> StepFailure:
    """The failure `message`, with what a command on the host said as evidence."""
    return StepFailure(
        f"{result.host}: {message}",
        evidence=Evidence(
            host=result.host, command=result.command, exit_status=result.exit_status, output=result.output
        ),
    )


def parse_sha256s(output: str) -> list[str]:
    """The checksums that one or several runs of sha256sum printed."""
    return re.findall(r"^([0-9a-f]{64})(?:\s.*)?$", output, re.MULTILINE)
