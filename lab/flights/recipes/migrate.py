"""Live migration: between two hosts, whose versions of Xen may differ, and many times in a row."""

from __future__ import annotations

from typing import Final

from lab.flights.recipe import Line, Recipe, Role, register, run, test_frame
from lab.flights.status import StepStatus

PAIR: Final = (Role(name="src_host", equivalent="migrate"), Role(name="dst_host", equivalent="migrate"))
_SRC, _DST = (role.name for role in PAIR)


def _supported(role: str) -> Line:
    return run(
        "support-check", f"support-check/{role}", role=role, needs="live-migration", iffail=StepStatus.BLOCKED
    )


def _move(source: str, target: str, testid: str) -> Line:
    return run("guest-migrate", testid, role=source, source=source, target=target)


def _refused(mode: str) -> Line:
    return run(
        "guest-migrate-refused", f"guest-migrate-refused/{mode}", role=_SRC, source=_SRC, target=_DST, mode=mode
    )


def _read_disk(role: str, testid: str) -> Line:
    return run("disk-io", testid, role=role, mode="read")


MIGRATION: Final = (
    _supported(_SRC),
    run("guest-start", role=_SRC),
    run("guest-console", "guest-console/src_host", role=_SRC),
    run("fault-inject", role=_SRC),
    _move(_SRC, _DST, "guest-migrate"),
    run("guest-console", "guest-console/dst_host", role=_DST),
    run("guest-stop", role=_DST),
)
"""A guest starts on one host, moves to the other, and is stopped there; whatever toolstack does it."""

register(
    Recipe(
        name="test-migrupgrade",
        summary="a guest moves live to a host with a newer Xen, lives on there, and is stopped there",
        roles=PAIR,
        lines=test_frame(PAIR, MIGRATION),
    )
)

register(
    Recipe(
        name="test-migrate-pair",
        summary="a guest with a disk is refused by another host, moves there live, and back",
        roles=PAIR,
        lines=test_frame(
            PAIR,
            (
                _supported(_SRC),
                _supported(_DST),
                run("disk-shared", role=_SRC),
                run("guest-start", role=_SRC),
                _read_disk(_SRC, "disk-io/src_host"),
                _refused("cut"),
                _refused("taken"),
                run("fault-inject", role=_SRC),
                _move(_SRC, _DST, "guest-migrate/src_host.dst_host"),
                _read_disk(_DST, "disk-io/dst_host"),
                _move(_DST, _SRC, "guest-migrate/dst_host.src_host"),
                _read_disk(_SRC, "disk-io/src_host.2"),
                run("guest-stop", role=_SRC),
            ),
        ),
    )
)

_HOST = (Role(name="host"),)

register(
    Recipe(
        name="test-migrate-x10",
        summary="a guest is migrated live to its own host ten times in a row",
        roles=_HOST,
        lines=test_frame(
            _HOST,
            (
                _supported("host"),
                run("guest-start"),
                run("fault-inject"),
                run("guest-localmigrate", "guest-localmigrate/x10", times="10"),
                run("guest-stop"),
            ),
        ),
    )
)
