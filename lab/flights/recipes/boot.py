"""Booting Xen itself: nothing but what every test job begins with, from power-on; and the check of a host."""

from __future__ import annotations

from dataclasses import replace

from lab.flights.checks import RECIPE
from lab.flights.recipe import BROKEN, Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-boot",
        summary="a host boots Xen the way its runvar `host_start` says, and what runs is what was asked for",
        roles=_ROLES,
        lines=test_frame(_ROLES, ()),
    )
)

# What does not work here is the host's fault, or at least the lab's: nothing of a product is tested.
register(
    Recipe(
        name=RECIPE,
        summary="a host is switched on, boots the lab's usual Xen, answers, and can be examined",
        roles=_ROLES,
        lines=tuple(replace(line, iffail=BROKEN) for line in test_frame(_ROLES, (run("examine"),))),
    )
)
