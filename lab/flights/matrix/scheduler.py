"""Xen's schedulers.

Each that is not Xen's own choice is an argument at boot, and so a set-up of its own; credit2 shares one with others.
"""

from __future__ import annotations

from typing import Final

from lab.flights.matrix.table import OLDER, Build, Variant


def _scheduler(
    name: str,
    job: str = "",
    *,
    argument: bool = True,
    build: Build = "packaged",
    arch: str = "amd64",
    flags: tuple[str, ...] = (),
) -> Variant:
    return Variant(
        name=f"xl-{job or name}",
        recipe="test-scheduler",
        runvars={
            "guest_kind": "pvh" if arch == "arm64" else "pv",  # all guests on Arm are of that one kind
            "scheduler": name,
            **({"xen_boot_append": f"sched={name}"} if argument else {}),
        },
        flags=flags,
        images={"dom0_image": OLDER},
        arches=(arch,),
        build=build,
        sample="scheduler",
    )


VARIANTS: Final[tuple[Variant, ...]] = (
    # what Xen takes if it is not told: reuses a host as others have set it up, and holds Xen to its own choice
    _scheduler("credit2", argument=False),
    _scheduler("credit", "credit1"),
    _scheduler("credit2", argument=False, arch="arm64"),
    _scheduler("credit", "credit1", arch="arm64"),
    # Debian builds Xen without these
    _scheduler("rtds", build="source"),
    _scheduler("null", build="source", flags=("smp",)),
)
