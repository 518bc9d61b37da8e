"""The step guest-start."""

from __future__ import annotations

import re
from itertools import count
from typing import Final

from lab.flights.steps import StepContext, step
from testcases._disks import check_guest_disk
from testcases._guests import READY, Guest, guest_config
from testcases._waiting import Stopwatch, until

CREATE_LIMIT_S: Final = 180.0
"""A stub domain has to boot before its guest is created."""

NOTHING_TO_BOOT: Final = "No bootable device"
"""What SeaBIOS says when it has tried everything."""

READY_LIMIT_S: Final = {"pv": 120.0, "pvh": 120.0, "hvm": 400.0}
"""An HVM guest on an emulated host runs its firmware under two emulators."""


@step("guest-start", timeout_s=600)
def guest_start(ctx: StepContext) -> None:
    """The guest that the runvars describe starts: it is listed, its agent says ready and answers, its count goes on."""
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    files = ctx.guest_files(ctx.runvars.require("guest_image"))
    stubdom = ctx.guest_files(image) if (image := ctx.runvars.get("stubdom_image")) else None
    config = guest_config(ctx.runvars, files, job=ctx.job, host_address=host.address, stubdom=stubdom)
    guest.require_none("at first")
    check_guest_disk(host, ctx.runvars)
    watch, since = Stopwatch(), host.console.offset()
    host.toolstack.create(config, timeout_s=CREATE_LIMIT_S)
    created = watch.seconds
    state = guest.require_listed()
    _await_ready(ctx, guest, limit_s=READY_LIMIT_S[config.kind], since=since)
    ready = watch.seconds
    if state.vcpus != config.vcpus:
        state = guest.require_listed()  # a CPU is listed from when the guest's kernel has brought it up
    # in an HVM guest's memory is a hole for its screen's, whether it has one or not
    if state.vcpus != config.vcpus or state.memory_mib - config.memory_mib not in (0, -1 * (config.kind == "hvm")):
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


def _await_ready(ctx: StepContext, guest: Guest, *, limit_s: float, since: int) -> None:
    """Wait until the guest says ready; a look at its state every ten seconds ends the wait for one that crashed.

    What its firmware says comes out on the host's serial console, where it is looked for `since` that offset.
    """
    looks = count(1)

    def firmware() -> str:
        return firmware_lines(guest.host.console.read(since).decode(errors="replace"))

    def ready() -> bool | None:
        if READY in guest.console.text():
            return True
        if next(looks) % 20 == 0:
            guest.require_listed()
            if NOTHING_TO_BOOT in (said := firmware()):
                raise guest.failure(f"the guest should boot, but its firmware says {NOTHING_TO_BOOT!r}", output=said)
        return None

    if not until(ctx, ready, limit_s=limit_s, every_s=0.5):
        raise guest.failure(f"the guest should say {READY!r} within {limit_s:.0f} s, but did not", output=firmware())


def firmware_lines(console: str) -> str:
    """The last lines of a host's serial console that are a guest's firmware's, without what Xen puts before them.

    >>> firmware_lines("(XEN) x\\n(d3) Booting from Hard Disk...\\n(d3) No bootable device.\\n")
    'Booting from Hard Disk...\\nNo bootable device.'
    """
    return "\n".join(re.findall(r"^(?:\(XEN\) )?\(d[0-9]+\) (.*?)\r?$", console, re.MULTILINE)[-60:])
