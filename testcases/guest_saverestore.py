"""The step guest-saverestore."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import SkipStep, StepContext, step
from testcases._disks import check_guest_disk
from testcases._guests import GUEST, SCRATCH, Guest, check_survived
from testcases._readings import read_all
from testcases._support import SUPPORT
from testcases._waiting import Stopwatch

SAVED: Final = f"{SCRATCH}/guest.save"


@step("guest-saverestore", timeout_s=600)
def guest_saverestore(ctx: StepContext) -> None:
    """The guest, saved to a file, is gone; restored, it goes on where it was, as a new domain."""
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    saving = SUPPORT["save-restore"]
    if reason := saving.missing(read_all(host.shell, saving.commands), ctx.runvars):
        raise SkipStep(f"{host.name}: {reason}")
    domid = guest.require_listed().domid
    before = guest.life()
    watch = Stopwatch()
    host.toolstack.save(GUEST, SAVED)
    saved = watch.seconds
    try:
        guest.require_none("after save")
        check_guest_disk(host, ctx.runvars)
        watch = Stopwatch()
        host.toolstack.restore(SAVED)
        restored = watch.seconds
    finally:
        host.shell.run("rm", "-f", SAVED, check=False)
    state = guest.require_listed()
    if state.domid == domid:
        raise guest.failure(f"a restored guest is a new domain, but it still is {domid}")
    after = check_survived(before, [guest], "save and restore")
    ctx.runvars.set("guest_domid", state.domid)
    ctx.runvars.set("save_s", saved)
    ctx.runvars.set("restore_s", restored)
    ctx.log(f"{host.name}: saved in {saved} s, restored in {restored} s, domain {domid} became {state.domid}")
    ctx.log(f"heartbeats {before.beat.seq} to {after.beat.seq} without a hole, memory whole")
