"""XSM: what a FLASK policy forbids is denied, and what it allows works."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-xsm",
        summary="a FLASK policy is loaded and enforced: what it forbids is denied and logged, what it allows works",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("xsm-policy", "xsm-policy/load", mode="load"),
                run("fault-inject"),
                run("xsm-prove"),
                run("xsm-policy", "xsm-policy/restore", mode="restore"),
            ),
        ),
    )
)
