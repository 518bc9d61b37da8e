"""Features of the hypervisor that have a job of their own."""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Variant

_ON_OLDER: Final = {"dom0_image": OLDER}

VARIANTS: Final[tuple[Variant, ...]] = (
    Variant(name="examine", recipe="examine", images=_ON_OLDER),
    Variant(
        name="xl-multivcpu",
        recipe="test-multivcpu",
        runvars={"guest_kind": "pv", "guest_vcpus": "4"},
        images=_ON_OLDER,
    ),
    Variant(
        name="xl-pvshim",
        recipe="test-pvshim",
        # the shim looks for 128 MiB in one piece for the guest's kernel, beside its files and itself; and emulated
        # hosts are of an AMD family on which a Xen does not start as a guest
        runvars={"guest_kind": "pv", "guest_pvshim": "1", "guest_memory": "384", "guest_cpu_family": "23"},
        flags=("hvm",),
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
    Variant(name="livepatch", recipe="test-livepatch", images=_ON_OLDER, build="source"),
    # these say what they need, and are blocked until it is there; last, because a host is set up anew after them
    Variant(
        name="dom0pvh-xl",
        recipe="test-dom0pvh",
        runvars={"guest_kind": "pvh"},  # where it works: and xen_boot_append=dom0=pvh
        flags=("hvm",),
        images=_ON_OLDER,
    ),
    Variant(name="qemuu-nested", recipe="test-nested", flags=("hvm",), images=_ON_OLDER),
    Variant(name="xtf", recipe="test-xtf", images=_ON_OLDER),
)
