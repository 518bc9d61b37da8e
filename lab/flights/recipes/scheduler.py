"""Xen's schedulers: the one asked for runs, and gives a guest what it should."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-scheduler",
        summary="a guest is held to its share of the processor by the scheduler asked for, is saved and restored",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("support-check", needs="scheduler"),
                run("guest-start"),
                run("fault-inject"),
                run("guest-scheduler"),
                run("guest-saverestore"),
                run("guest-stop"),
            ),
        ),
    )
)
