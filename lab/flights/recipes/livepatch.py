"""Live patches of the running hypervisor."""

from __future__ import annotations

from lab.flights.recipe import Recipe, Role, register, run, test_frame

_ROLES = (Role(name="host"),)

register(
    Recipe(
        name="test-livepatch",
        summary="the running Xen is patched, patched again, and goes back",
        roles=_ROLES,
        lines=test_frame(
            _ROLES,
            (
                run("support-check", needs="livepatch"),
                run("livepatch", "livepatch/apply", mode="apply"),
                run("fault-inject"),
                run("livepatch", "livepatch/replace", mode="replace"),
                run("livepatch", "livepatch/revert", mode="revert"),
            ),
        ),
    )
)
