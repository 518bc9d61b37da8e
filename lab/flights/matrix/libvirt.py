"""The same through libvirt. Its dom0 images are others than xl's: a daemon more runs in them."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import NEWEST, OLDER, Variant

_RUNVARS: Final = {"guest_kind": "pv", "toolstack": "libvirt"}

VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(name="libvirt", recipe="test-libvirt", runvars=_RUNVARS, images={"dom0_image": f"libvirt-{OLDER}"}),
    Variant(
        name="libvirt-pair",
        recipe="test-libvirt-pair",
        runvars=_RUNVARS,
        images={"src_host_dom0_image": f"libvirt-{OLDER}", "dst_host_dom0_image": f"libvirt-{OLDER}"},
    ),
    Variant(
        name="libvirt-migrupgrade",
        recipe="test-libvirt-pair",
        runvars=_RUNVARS,
        images={"src_host_dom0_image": f"libvirt-{OLDER}", "dst_host_dom0_image": f"libvirt-{NEWEST}"},
    ),
)
