"""Live migration between two hosts, and many times in a row.

A PV guest moves from an older Xen only: Debian's 4.20 has no shadow paging, without which the pages that a PV guest
writes meanwhile cannot be found. No guest moves to an older Xen: that is not supported.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import EVERYWHERE, FULL, NEWEST, OLDER, Variant


def _upgrade(kind: str, source: str, target: str, *flights: str, name: str) -> Variant:
    return Variant(
        name=name,
        recipe="test-migrupgrade",
        runvars={"guest_kind": kind},
        flags=() if kind == "pv" else ("hvm",),
        images={"src_host_dom0_image": source, "dst_host_dom0_image": target},
        flights=flights,
    )


def _pair(kind: str, xen: str) -> Variant:
    return Variant(
        name=f"migrate-pair-{kind}",
        recipe="test-migrate-pair",
        runvars={"guest_kind": kind},
        flags=() if kind == "pv" else ("hvm",),
        images={"src_host_dom0_image": xen, "dst_host_dom0_image": xen},
    )


VARIANTS: Final = (
    _upgrade("pv", OLDER, NEWEST, *EVERYWHERE, name="migrupgrade"),
    _upgrade("pvh", OLDER, NEWEST, FULL, name="migrupgrade-pvh"),
    _upgrade("hvm", OLDER, NEWEST, FULL, name="migrupgrade-hvm"),
    _pair("pv", OLDER),
    _pair("pvh", NEWEST),
    Variant(
        name="xl-pv-migrate-x10",
        recipe="test-migrate-x10",
        runvars={"guest_kind": "pv"},
        images={"dom0_image": OLDER},
    ),
)
