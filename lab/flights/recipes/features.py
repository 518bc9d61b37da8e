"""Features of the hypervisor that have a recipe of their own."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-multivcpu",
        summary="a guest with several virtual CPUs uses them all, loses one and gets it back, is saved and restored",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("guest-start"),
                run("fault-inject"),
                run("guest-vcpus"),
                run("guest-saverestore"),
                run("guest-stop"),
            ),
        ),
    )
)

register(
    Recipe(
        name="test-shadow",
        summary="a guest whose memory Xen translates by shadow page tables is saved, moved and stopped",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("support-check", needs="shadow"),
                run("guest-start"),
                run("guest-paging", by="shadow"),
                run("fault-inject"),
                run("guest-saverestore"),
                run("guest-localmigrate"),
                run("guest-stop"),
            ),
        ),
    )
)

register(
    Recipe(
        name="test-pvshim",
        summary="a PV guest runs on a Xen of its own in a PVH guest, lives and is stopped",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("support-check", needs="pvshim"),
                run("guest-start"),
                run("guest-pvshim"),
                run("guest-console"),
                run("fault-inject"),
                run("guest-stop"),
            ),
        ),
    )
)

register(
    Recipe(
        name="test-dom0pvh",
        summary="dom0 is a PVH domain, and runs a guest that is saved, restored and stopped",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("support-check", needs="dom0pvh"),
                run("dom0-type", type="PVH"),
                run("guest-start"),
                run("guest-console"),
                run("fault-inject"),
                run("guest-saverestore"),
                run("guest-stop"),
            ),
        ),
    )
)

register(
    Recipe(
        name="test-nested",
        summary="a Xen with guests of its own runs in an HVM guest (blocked: needs an image of an inner host)",
        roles=_ROLES,
        lines=test_frame(_ROLES, (run("support-check", needs="nested"),)),
    )
)

register(
    Recipe(
        name="test-xtf",
        summary="the tests of the Xen Test Framework (blocked: needs its tree)",
        roles=_ROLES,
        lines=test_frame(_ROLES, (run("support-check", needs="xtf"),)),
    )
)

register(
    Recipe(
        name="examine",
        summary="a host tells what it is and what Xen can do on it",
        roles=_ROLES,
        lines=test_frame(_ROLES, (run("examine"),)),
    )
)
