"""The same through libvirt: a guest on one host, and its live migration between two, whose versions may differ.

The steps are those of xl; the runvar `toolstack` decides who does them. libvirt has no migration to the same host.
"""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, on_each, register, run, test_frame
from lab.flights.recipes.migrate import MIGRATION, PAIR

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-libvirt",
        summary="by libvirt, a guest is defined, started, saved and restored, shut down, started again and destroyed",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("libvirt-check"),
                run("guest-start"),
                run("guest-console"),
                run("fault-inject"),
                run("guest-saverestore"),
                run("guest-stop"),
                run("guest-start", "guest-start.2"),
                run("guest-destroy"),
            ),
        ),
    )
)

register(
    Recipe(
        name="test-libvirt-pair",
        summary="by libvirt, a guest moves live to another host, lives on there, and is shut down there",
        roles=PAIR,
        lines=test_frame(PAIR, (*on_each(PAIR, run("libvirt-check")), *MIGRATION)),
    )
)
