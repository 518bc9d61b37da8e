"""Booting Xen itself, from cold and over the network."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import FULL, XEN_UNSTABLE, Variant

VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(name="boot", recipe="test-boot", runvars={"host_start": "cold"}, flights=(XEN_UNSTABLE, FULL)),
)
