"""Disk formats: what a guest writes is what it reads, before and after a save, and what dom0 finds in the image."""

from __future__ import annotations

from lab.flights.recipe import Line, Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)


def _body(attach: tuple[Line, ...] = (), detach: tuple[Line, ...] = ()) -> tuple[Line, ...]:
    return (
        run("disk-create"),
        *attach,
        run("guest-start"),
        run("disk-io", "disk-io/write", mode="write"),
        run("fault-inject"),
        run("disk-io", "disk-io/read", mode="read"),
        run("guest-saverestore"),
        run("disk-io", "disk-io/read.2", mode="read"),
        run("guest-stop"),
        run("guest-start", "guest-start.2"),
        run("disk-io", "disk-io/read.3", mode="read"),
        run("guest-destroy"),
        *detach,
        run("disk-verify"),
        run("disk-remove"),
    )


register(
    Recipe(
        name="test-disk",
        summary="a guest writes to a disk image, reads it after a save and in its next boot; then dom0 verifies it",
        roles=_ROLES,
        lines=test_frame(_ROLES, _body()),
    )
)

register(
    Recipe(
        name="test-disk-nbd",
        summary="the same, where dom0's kernel serves the image as a block device: no QEMU is the disk's backend",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            _body(
                (run("disk-nbd", "disk-nbd/attach", mode="attach"),),
                (run("disk-nbd", "disk-nbd/detach", mode="detach"),),
            ),
        ),
    )
)
