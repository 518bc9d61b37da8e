"""HVM guests: device model in dom0, firmware, boot from disk.

A raw disk is what xl-hvm and the job with a stub domain boot from.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Variant


def _disk_boot(disk_format: str) -> Variant:
    return Variant(
        name=f"xl-hvm-{disk_format}",
        recipe="test-disk-boot",
        runvars={"guest_kind": "hvm", "disk_format": disk_format},
        flags=("hvm",),
        images={"dom0_image": OLDER},
    )


VARIANTS: Final = (
    Variant(
        name="xl-hvm",
        recipe="test-xl",
        runvars={"guest_kind": "hvm", "guest_boot": "disk", "disk_format": "raw"},
        flags=("hvm",),
        images={"dom0_image": OLDER},
    ),
    _disk_boot("qcow2"),
    _disk_boot("vhd"),
)
