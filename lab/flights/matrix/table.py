"""What a line of the matrix says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

NEWEST: Final = "xen-4.20"
OLDER: Final = "xen-4.17"

SMOKE: Final = "smoke"
XEN_UNSTABLE: Final = "xen-unstable"
FULL: Final = "full"

EVERYWHERE: Final = (SMOKE, XEN_UNSTABLE, FULL)
"""Every flight there is."""

Build = Literal["packaged", "source", "xsm"]
"""Where a job's Xen comes from: Debian's package, or a build job of the same flight (plain, or with XSM)."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A kind of test job: the end of its name, its recipe, the runvars that set it apart, the host flags it needs.

    `images` says which Xen its hosts boot, by runvar: `xen-4.17` stands for the image `dom0-xen-4.17-ARCH`,
    `libvirt-xen-4.17` for `dom0-libvirt-xen-4.17-ARCH`. `arches` are those it is tested on. What has a `sample` is
    spread over architectures, as OSSTest does it: of the variants of one name each flight but the full one tests one
    architecture, and the next name of that sample another.
    """

    name: str
    recipe: str
    runvars: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    flags: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"dom0_image": NEWEST}))
    arches: tuple[str, ...] = ("amd64",)
    build: Build = "packaged"
    sample: str = ""
    flights: tuple[str, ...] = (XEN_UNSTABLE, FULL)
