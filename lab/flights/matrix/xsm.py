"""XSM: what a FLASK policy forbids and allows, and the other families under it.

A policy of xsm_policies/ is a job. The others show that the tree's own policy is in nobody's way: the same recipes as
without XSM, which then fail at any denial that is not known to be harmless. All have one set-up, so that a host that
one of them has booted serves the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lab.flights.matrix.table import OLDER, Variant

_OLDER: Final = {"dom0_image": OLDER}
_FLASK: Final = {"flask": "enforcing", "guest_image": "guest-comms-amd64"}

POLICIES: Final = ("default", "isolated", "nomigrate", "vault")
"""The folders of xsm_policies/ that have a job."""


def _policy(name: str) -> Variant:
    return Variant(
        name=f"xsm-{name}",
        recipe="test-xsm",
        runvars={**_FLASK, "guest_kind": "pv", "xsm_policy": name},
        images=_OLDER,
        build="xsm",
    )


def _under_xsm(name: str, recipe: str, *flags: str, images: Mapping[str, str] = _OLDER, **runvars: str) -> Variant:
    return Variant(
        name=f"{name}-xsm", recipe=recipe, runvars={**_FLASK, **runvars}, flags=flags, images=images, build="xsm"
    )


VARIANTS: Final[tuple[Variant, ...]] = (
    *(_policy(name) for name in POLICIES),
    _under_xsm("xl-pv", "test-xl", guest_kind="pv"),
    _under_xsm("xl-pvh", "test-xl", "hvm", guest_kind="pvh"),
    _under_xsm(
        "xl-hvm",
        "test-xl",
        "hvm",
        guest_kind="hvm",
        guest_image="guest-hvm-amd64",
        guest_boot="disk",
        disk_format="raw",
    ),
    _under_xsm("xl-qcow2", "test-disk", guest_kind="pv", disk_format="qcow2"),
    _under_xsm(
        "migrate-pair-pv",
        "test-migrate-pair",
        images={"src_host_dom0_image": OLDER, "dst_host_dom0_image": OLDER},
        guest_kind="pv",
    ),
    _under_xsm(
        "libvirt",
        "test-libvirt",
        images={"dom0_image": f"libvirt-{OLDER}"},
        guest_kind="pv",
        toolstack="libvirt",
    ),
)
