"""Builds from source: jobs without hosts, that other jobs name in their runvar `xenbuildjob`."""

from __future__ import annotations

from lab.flights.builds import HYPERVISOR, POLICIES, RECIPE, TOOLS
from lab.flights.recipe import Recipe, register, run

register(
    Recipe(
        name=RECIPE,
        summary="a revision of Xen is compiled: the hypervisor as configured, XSM policies, and the toolstack",
        roles=(),
        lines=(
            run("xen-build", "xen-build/hypervisor", part=HYPERVISOR),
            run("xen-build", "xen-build/policies", part=POLICIES),
            run("xen-build", "xen-build/tools", part=TOOLS),
        ),
    )
)
