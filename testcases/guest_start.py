"""The step guest-start."""

from __future__ import annotations

from itertools import count
from typing import Final

from lab.flights.steps import StepContext, step
from testcases._disks import check_guest_disk
from testcases._guests import READY, Guest, guest_config
from testcases._waiting import Stopwatch, until

READY_LIMIT_S: Final = {"pv": 120.0, "pvh": 120.0, "hvm": 400.0}
"""An HVM guest on an emulated host runs its firmware under two emulators."""


@step("guest-start", timeout_s=600)
def guest_start(ctx: StepContext) -> None:
    """The guest that the runvars describe starts: it is listed, its agent says ready and answers, its count goes on."""
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    files = ctx.guest_files(ctx.runvars.require("guest_image"))
    config = guest_config(ctx.runvars, files, job=ctx.job, host_address=host.address)
    guest.require_none("at first")
    check_guest_disk(host, ctx.runvars)
    watch = Stopwatch()
    host.toolstack.create(config)
    created = watch.seconds
    state = guest.require_listed()
    _await_ready(ctx, guest, limit_s=READY_LIMIT_S[config.kind])
    ready = watch.seconds
    if state.vcpus != config.vcpus:
        state = guest.require_listed()  # a CPU is listed from when the guest's kernel has brought it up
    if (state.memory_mib, state.vcpus) != (config.memory_mib, config.vcpus):
        raise guest.failure(
            f"the guest should have {config.memory_mib} MiB and {config.vcpus} CPU, "
            f"but is listed with {state.memory_mib} MiB and {state.vcpus}"
        )
    life = guest.life()
    if life.boot_id == ctx.runvars.get("guest_boot_id"):
        raise guest.failure(f"the guest should have booted anew, but it is boot {life.boot_id} again")
    guest.await_beats(beyond=life.beat.seq, more=1)
    for name, value in (("domid", state.domid), ("start_s", ready), ("boot_id", life.boot_id)):
        ctx.runvars.set(f"guest_{name}", value)
    ctx.log(f"{host.name}: {config.kind} guest is domain {state.domid}: created in {created} s, ready after {ready} s")


def _await_ready(ctx: StepContext, guest: Guest, *, limit_s: float) -> None:
    """Wait until the guest says ready; a look at its state every ten seconds ends the wait for one that crashed."""
    looks = count(1)

    def ready() -> bool | None:
        if READY in guest.console.text():
            return True
        if next(looks) % 20 == 0:
            guest.require_listed()
        return None

    if not until(ctx, ready, limit_s=limit_s, every_s=0.5):
        raise guest.failure(f"the guest should say {READY!r} within {limit_s:.0f} s, but did not")
