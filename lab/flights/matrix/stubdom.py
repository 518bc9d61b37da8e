"""HVM guests whose device model runs in a stub domain."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Variant

VARIANTS: Final = (
    Variant(
        name="xl-hvm-stubdom",
        recipe="test-stubdom",
        runvars={"guest_kind": "hvm", "disk_format": "raw", "stubdom_image": f"stubdom-{OLDER}-amd64"},
        flags=("hvm",),
        images={"dom0_image": OLDER},
    ),
)
