"""Disk formats."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import EVERYWHERE, NEWEST, OLDER, Variant


def _disk(disk_format: str, xen: str) -> Variant:
    return Variant(
        name=f"xl-{disk_format}",
        recipe="test-disk",
        runvars={"guest_kind": "pv", "disk_format": disk_format},
        images={"dom0_image": xen},
        flights=EVERYWHERE,
    )


VARIANTS: Final = (_disk("raw", OLDER), _disk("qcow2", NEWEST), _disk("vhd", OLDER))
