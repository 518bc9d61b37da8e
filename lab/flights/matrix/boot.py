"""Booting Xen itself, from cold and over the network."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import NEWEST, OLDER, Variant

VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(name="boot", recipe="test-boot", runvars={"host_start": "cold"}, images={"dom0_image": NEWEST}),
    Variant(name="netboot", recipe="test-boot", runvars={"host_start": "netboot"}, images={"dom0_image": OLDER}),
)
