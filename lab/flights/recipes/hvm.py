"""HVM guests that their firmware boots from a disk; with the device model in dom0, and in a stub domain."""

from __future__ import annotations

from collections.abc import Iterable

from lab.flights.recipe import Line, Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)
_DATA = "/dev/xvda2"


def _booted_from_disk(*before: Line, started: Iterable[Line] = (), after: Iterable[Line]) -> tuple[Line, ...]:
    return (
        *before,
        run("disk-boot-create"),
        run("fault-inject", "fault-inject/disk", point="disk"),
        run("guest-start"),
        run("disk-boot-check"),
        *started,
        run("disk-io", "disk-io/write", mode="write", device=_DATA),
        run("fault-inject"),
        run("disk-io", "disk-io/read", mode="read", device=_DATA),
        *after,
        run("disk-verify"),
        run("disk-remove"),
    )


register(
    Recipe(
        name="test-disk-boot",
        summary="an HVM guest boots from a disk image by its firmware, writes to it, and it is verified from outside",
        roles=_ROLES,
        lines=test_frame(_ROLES, _booted_from_disk(run("support-check", needs="hvm"), after=(run("guest-stop"),))),
    )
)

register(
    Recipe(
        name="test-stubdom",
        summary="an HVM guest whose device model runs in a stub domain: disk, save and restore, stop, destroy",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            _booted_from_disk(
                run("support-check", "stubdom-check", needs="stubdom"),
                started=(run("stubdom-labels", when="flask"),),
                after=(
                    run("guest-saverestore"),
                    run("disk-io", "disk-io/read.2", mode="read", device=_DATA),
                    run("guest-stop"),
                    run("guest-start", "guest-start.2"),
                    run("guest-destroy"),
                ),
            ),
        ),
    )
)
