"""HVM guests whose device model runs in a stub domain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lab.flights.matrix.table import OLDER, Build, Variant


def _stubdom(name: str, build: Build = "packaged", more: Mapping[str, str] = MappingProxyType({})) -> Variant:
    return Variant(
        name=name,
        recipe="test-stubdom",
        runvars={"guest_kind": "hvm", "disk_format": "raw", "stubdom_image": f"stubdom-{OLDER}-amd64", **more},
        flags=("hvm",),
        images={"dom0_image": OLDER},
        build=build,
    )


VARIANTS: Final = (
    _stubdom("xl-hvm-stubdom"),
    _stubdom("xl-hvm-stubdom-xsm", "xsm", {"flask": "enforcing"}),
)
