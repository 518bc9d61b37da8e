"""Live migration between two hosts, whose versions of Xen may differ."""

from __future__ import annotations

from typing import Final

from lab.flights.recipe import Recipe, Role, register, run, test_frame

PAIR: Final = (Role(name="src_host", equivalent="migrate"), Role(name="dst_host", equivalent="migrate"))

MIGRATION: Final = (
    run("guest-start", role="src_host"),
    run("guest-console", "guest-console/src_host", role="src_host"),
    run("fault-inject", role="src_host"),
    run("guest-migrate", role="src_host", source="src_host", target="dst_host"),
    run("guest-console", "guest-console/dst_host", role="dst_host"),
    run("guest-stop", role="dst_host"),
)
"""A guest starts on one host, moves to the other, and is stopped there; whatever toolstack does it."""

register(
    Recipe(
        name="test-migrupgrade",
        summary="a guest moves live to a host with a newer Xen, lives on there, and is stopped there",
        roles=PAIR,
        lines=test_frame(
            PAIR,
            MIGRATION,
        ),
    )
)
