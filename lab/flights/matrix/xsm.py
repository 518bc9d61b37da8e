"""XSM: what a FLASK policy forbids and allows, and the other families under it.

A policy of xsm_policies/ is a job. The others show that the tree's own policy is in nobody's way: the same recipes as
without XSM, which then fail at any denial that is not known to be harmless. All have one set-up, so that a host that
one of them has booted serves the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lab.flights.matrix.table import OLDER, Variant

_FLASK: Final = {"flask": "enforcing", "guest_image": "guest-comms-amd64"}

POLICIES: Final = ("default", "isolated", "nomigrate", "vault")
"""The folders of xsm_policies/ that have a job."""


def _policy(name: str) -> Variant:
    return Variant(
        name=f"xsm-{name}",
        recipe="test-xsm",
        runvars={**_FLASK, "guest_kind": "pv", "xsm_policy": name},
        images={"dom0_image": OLDER},
        build="xsm",
    )


def _under_xsm(name: str, recipe: str, runvars: Mapping[str, str], *flags: str, roles: tuple[str, ...] = ()) -> Variant:
    images = {f"{role}_dom0_image": OLDER for role in roles} or {"dom0_image": OLDER}
    return Variant(
        name=f"{name}-xsm", recipe=recipe, runvars={**_FLASK, **runvars}, flags=flags, images=images, build="xsm"
    )


VARIANTS: Final[tuple[Variant, ...]] = (
    *(_policy(name) for name in POLICIES),
    _under_xsm("xl-pv", "test-xl", {"guest_kind": "pv"}),
    _under_xsm("xl-pvh", "test-xl", {"guest_kind": "pvh"}, "hvm"),
    _under_xsm("xl-qcow2", "test-disk", {"guest_kind": "pv", "disk_format": "qcow2"}),
    _under_xsm("migrupgrade", "test-migrupgrade", {"guest_kind": "pv"}, roles=("src_host", "dst_host")),
)
