"""Guests of each kind under xl.

A smoke flight has one host of each Xen, and both are busy all the time. PV goes to the older one: Debian builds the
newer one without shadow paging, and without that a PV guest cannot be migrated live.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import EVERYWHERE, NEWEST, OLDER, Variant

VARIANTS: Final = (
    Variant(
        name="xl-pv",
        recipe="test-xl",
        runvars={"guest_kind": "pv"},
        images={"dom0_image": OLDER},
        flights=EVERYWHERE,
    ),
    Variant(
        name="xl-pvh",
        recipe="test-xl",
        runvars={"guest_kind": "pvh"},
        flags=("hvm",),
        images={"dom0_image": NEWEST},
        flights=EVERYWHERE,
    ),
)
