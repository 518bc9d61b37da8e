"""Makes the disk that a guest image boots from: GRUB in front of a file system with its kernel and initramfs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.errors import Evidence, InfraError
from lab.flights.boot_disk import (
    ARGUMENTS_AT,
    GRUB_CONFIG,
    GRUB_MODULES,
    MIB,
    SECTOR,
    arguments_area,
    boot_sector,
    core_image,
    partitions,
)
from lab.image_debian import need_tools

GRUB_FOLDER: Final = Path("/usr/lib/grub/i386-pc")
_SPARE_MIB: Final = 2
DATA_MIB: Final = 16
"""Size of the partition for data. Nothing is written there: the file is sparse."""


def make_boot_disk(kernel: bytes, initramfs: bytes, disk: Path) -> None:
    """Write `disk`, a raw image that a BIOS boots; its kernel gets no arguments until a job writes some."""
    need_tools("grub-mkimage", "mkfs.ext2")
    if not (GRUB_FOLDER / "boot.img").is_file():
        raise InfraError(f"GRUB for a BIOS is not installed ({GRUB_FOLDER})", hint="apt install grub-pc-bin")
    with tempfile.TemporaryDirectory(dir=disk.parent) as folder:
        work = Path(folder)
        (work / "early.cfg").write_text(GRUB_CONFIG)
        _run([
            "grub-mkimage", "-O", "i386-pc", "-d", str(GRUB_FOLDER), "-c", str(work / "early.cfg"), "-p", "/",
            "-o", str(work / "core.img"), *GRUB_MODULES,
        ])  # fmt: skip
        (work / "system").mkdir()
        (work / "system/vmlinuz").write_bytes(kernel)
        (work / "system/initramfs").write_bytes(initramfs)
        size_mib = (len(kernel) + len(initramfs)) // MIB + 1 + _SPARE_MIB
        _run([
            "mkfs.ext2", "-q", "-F", "-m", "0", "-O", "^resize_inode", "-E", "root_owner=0:0",
            "-L", "lab-boot", "-d", str(work / "system"), str(work / "system.img"), f"{size_mib}M",
        ])  # fmt: skip
        system, data = partitions(system_mib=size_mib, disk_mib=1 + size_mib + DATA_MIB)
        with disk.open("wb") as out:
            out.write(boot_sector((GRUB_FOLDER / "boot.img").read_bytes(), (system, data)))
            out.write(core_image((work / "core.img").read_bytes()))
            out.seek(ARGUMENTS_AT * SECTOR)
            out.write(arguments_area(()))
            out.seek(system.start_mib * MIB)
            out.write((work / "system.img").read_bytes())
            out.truncate((data.start_mib + data.size_mib) * MIB)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise InfraError(
            f"{command[0]} failed with exit status {done.returncode}",
            evidence=Evidence(command=" ".join(command), exit_status=done.returncode, output=output[-20_000:]),
        )
