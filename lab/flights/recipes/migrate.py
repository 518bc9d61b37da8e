"""Live migration between two hosts, whose versions of Xen may differ."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="src_host", equivalent="migrate"), Role(name="dst_host", equivalent="migrate"))

register(
    Recipe(
        name="test-migrupgrade",
        summary="a guest moves live to a host with a newer Xen, lives on there, and is stopped there",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("guest-start", role="src_host"),
                run("guest-console", "guest-console/src_host", role="src_host"),
                run("fault-inject", role="src_host"),
                run("guest-migrate", role="src_host", source="src_host", target="dst_host"),
                run("guest-console", "guest-console/dst_host", role="dst_host"),
                run("guest-stop", role="dst_host"),
            ),
        ),
    )
)
