"""What runs on arm64 hosts only.

All guests on Arm are of one kind, which the toolstack calls pvh.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Variant


def _on_arm(name: str, recipe: str, **runvars: str) -> Variant:
    return Variant(
        name=name,
        recipe=recipe,
        runvars={"guest_kind": "pvh", **runvars},
        images={"dom0_image": OLDER},
        arches=("arm64",),
    )


VARIANTS: Final = (
    _on_arm("xl", "test-xl"),
    # a guest of 32 bits on the same host
    _on_arm("xl-armhf", "test-xl", guest_image="guest-tiny-armhf"),
    _on_arm("xl-raw", "test-disk", disk_format="raw"),
)
