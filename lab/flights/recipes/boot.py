"""Booting Xen itself: nothing but what every test job begins with, from power-on."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-boot",
        summary="a host boots Xen the way its runvar `host_start` says, and what runs is what was asked for",
        roles=_ROLES,
        lines=test_frame(_ROLES, ()),
    )
)
