"""Features of the hypervisor that have a job of their own."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Variant

_ON_OLDER: Final = {"dom0_image": OLDER}

VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(
        name="xl-multivcpu",
        recipe="test-multivcpu",
        runvars={"guest_kind": "pv", "guest_vcpus": "4"},
        images=_ON_OLDER,
    ),
    # Debian builds the newer Xen without shadow paging
    Variant(
        name="xl-shadow",
        recipe="test-shadow",
        runvars={"guest_kind": "pvh", "guest_hap": "0"},
        flags=("hvm",),
        images=_ON_OLDER,
    ),
)
