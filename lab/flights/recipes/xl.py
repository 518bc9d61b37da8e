"""Guests of each kind under xl: create, look, save, move, stop, start again, destroy."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-xl",
        summary="a guest is created, saved and restored, migrated locally, stopped, started again and destroyed",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("disk-boot-create", when="guest_boot"),
                run("guest-start"),
                run("disk-boot-check", when="guest_boot"),
                run("guest-console"),
                run("fault-inject"),
                run("guest-saverestore"),
                run("guest-localmigrate"),
                run("guest-stop"),
                run("guest-start", "guest-start.2"),
                run("guest-destroy"),
                run("disk-remove", when="guest_boot"),
            ),
        ),
    )
)
