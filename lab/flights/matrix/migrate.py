"""Live migration between two hosts."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import EVERYWHERE, NEWEST, OLDER, Variant

VARIANTS: Final = (
    Variant(
        name="migrupgrade",
        recipe="test-migrupgrade",
        runvars={"guest_kind": "pv"},
        images={"src_host_dom0_image": OLDER, "dst_host_dom0_image": NEWEST},
        flights=EVERYWHERE,
    ),
)
