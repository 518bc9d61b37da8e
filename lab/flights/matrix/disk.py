"""Disk formats, each as the disk of a PV guest: raw through dom0's kernel, the others through QEMU."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import EVERYWHERE, FULL, NEWEST, OLDER, Variant


def _disk(name: str, xen: str, *flights: str, **more: str) -> Variant:
    disk_format, _, _ = name.partition("-")
    return Variant(
        name=f"xl-{name}",
        recipe="test-disk",
        runvars={"guest_kind": "pv", "disk_format": disk_format, **more},
        images={"dom0_image": xen},
        sample="disk",
        flights=flights,
    )


# VHD on the older one: the QEMU for Xen that Debian has beside the newer one is built without that driver.
VARIANTS: Final = (
    _disk("raw", OLDER, *EVERYWHERE),
    _disk("qcow2", NEWEST, *EVERYWHERE, disk_snapshot="yes"),
    _disk("vhd", OLDER, *EVERYWHERE, disk_subformat="dynamic"),
    _disk("qcow2-backing", OLDER, FULL, disk_backing="qcow2", disk_snapshot="yes"),
    _disk("qcow2-backing-raw", NEWEST, FULL, disk_backing="raw"),
    _disk("vhd-fixed", OLDER, FULL, disk_subformat="fixed"),
)
