"""The disk an HVM guest boots from: what is where on it. Pure.

sector 0         the boot code of GRUB's boot.img, and the partition table
1 …              GRUB's core image, as long as it is
2040 … 2047      GRUB's command to load the kernel, with its arguments: written for each job
1 MiB …          partition 1: kernel and initramfs in a file system
behind it        partition 2: empty, for the guest to write to
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lab.errors import ConfigError
from lab.hosts.protocols import BOOT_ARGUMENT

SECTOR: Final = 512
MIB: Final = 1 << 20
ARGUMENTS_AT: Final = 2040
"""First sector of the kernel's arguments."""
ARGUMENTS_SECTORS: Final = 8
FIRST_PARTITION_MIB: Final = 1
DATA_PARTITION: Final = 2

GRUB_MODULES: Final = ("biosdisk", "part_msdos", "ext2", "linux", "configfile", "normal")
GRUB_CONFIG: Final = f"""\
source (hd0){ARGUMENTS_AT}+{ARGUMENTS_SECTORS}
initrd (hd0,msdos1)/initramfs
boot
"""
"""What the core image does by itself: no menu, no screen, no question.

The command that loads the kernel is among what it reads, whole: GRUB takes a variable with blanks for one argument.
"""

_TABLE: Final = 446
_SIGNATURE: Final = b"\x55\xaa"
_LINUX: Final = 0x83
_NO_CYLINDERS: Final = b"\xfe\xff\xff"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition's place on the disk, in MiB."""

    start_mib: int
    size_mib: int
    bootable: bool = False


def partitions(*, system_mib: int, disk_mib: int) -> tuple[Partition, Partition]:
    """The two partitions of a disk: the system, and the rest of it for data; `ConfigError` when nothing is left."""
    data_at = FIRST_PARTITION_MIB + system_mib
    if disk_mib <= data_at:
        raise ConfigError(
            f"a boot disk of {disk_mib} MiB has no room for data", hint=f"it needs at least {data_at + 1} MiB"
        )
    return (
        Partition(start_mib=FIRST_PARTITION_MIB, size_mib=system_mib, bootable=True),
        Partition(start_mib=data_at, size_mib=disk_mib - data_at),
    )


def boot_sector(code: bytes, table: Sequence[Partition]) -> bytes:
    """Sector 0: GRUB's boot code with our partition table in it; `ConfigError` when it is no boot sector."""
    if len(code) != SECTOR or not code.endswith(_SIGNATURE):
        raise ConfigError("boot.img is not a boot sector", hint="install grub-pc-bin anew")
    entries = b"".join(
        struct.pack(
            "<B3sB3sII",
            0x80 if each.bootable else 0,
            _NO_CYLINDERS,
            _LINUX,
            _NO_CYLINDERS,
            each.start_mib * (MIB // SECTOR),
            each.size_mib * (MIB // SECTOR),
        )
        for each in table
    )
    return code[:_TABLE] + entries.ljust(SECTOR - _TABLE - len(_SIGNATURE), b"\0") + _SIGNATURE


def partition_table(sector: bytes) -> tuple[Partition, ...]:
    """The partitions that sector 0 of a disk names (what `boot_sector` wrote); none when it is no boot sector."""
    if len(sector) < SECTOR or sector[SECTOR - 2 : SECTOR] != _SIGNATURE:
        return ()
    found = []
    for number in range(4):
        active, _, kind, _, start, count = struct.unpack_from("<B3sB3sII", sector, _TABLE + 16 * number)
        if kind:
            per_mib = MIB // SECTOR
            found.append(Partition(start_mib=start // per_mib, size_mib=count // per_mib, bootable=active == 0x80))
    return tuple(found)


def core_image(core: bytes) -> bytes:
    """GRUB's core image, if it ends before the arguments; else `ConfigError`."""
    if len(core) > (ARGUMENTS_AT - 1) * SECTOR:
        raise ConfigError(f"GRUB's core image has {len(core)} bytes and does not fit before the first partition")
    return core


def arguments_area(arguments: Iterable[str]) -> bytes:
    """The sectors with the kernel's arguments; `ConfigError` for one that could be read as more than itself."""
    words = tuple(arguments)
    for word in words:
        if not BOOT_ARGUMENT.fullmatch(word):
            raise ConfigError(
                f"{word[:60]!r} is not allowed as a boot argument",
                hint="one argument each, of letters, digits and ._:/=@,+- only",
            )
    line = f"linux (hd0,msdos1)/vmlinuz {' '.join(words)}\n".encode()
    size = ARGUMENTS_SECTORS * SECTOR
    if len(line) > size:
        raise ConfigError(f"the kernel's arguments have {len(line)} bytes, more than the {size} there is room for")
    return line.ljust(size, b"\n")  # empty lines up to the end: GRUB reads them all
