"""What runs on arm64 hosts.

All guests on Arm are of one kind, which the toolstack calls pvh.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Build, Variant


def _on_arm(name: str, recipe: str, *, build: Build = "packaged", sample: str = "", **runvars: str) -> Variant:
    return Variant(
        name=f"xl-{name}" if name else "xl",
        recipe=recipe,
        runvars={"guest_kind": "pvh", **runvars},
        images={"dom0_image": OLDER},
        arches=("arm64",),
        build=build,
        sample=sample,
    )


# Those that want the host set up alike stand together: the next one takes it as the one before has left it.
VARIANTS: Final = (
    _on_arm("", "test-xl"),
    _on_arm("raw", "test-disk", sample="disk", disk_format="raw"),
    # Debian builds QEMU with Xen's disk backend for amd64 only: here, dom0's kernel serves other formats through NBD.
    _on_arm("qcow2", "test-disk-nbd", sample="disk", disk_format="qcow2", disk_snapshot="yes"),
    _on_arm("vhd", "test-disk-nbd", sample="disk", disk_format="vhd", disk_subformat="dynamic"),
    # a guest of 32 bits on the same host
    _on_arm("armhf", "test-xl", guest_image="guest-tiny-armhf"),
    _on_arm("xsm", "test-xl", build="xsm", flask="enforcing"),
)
