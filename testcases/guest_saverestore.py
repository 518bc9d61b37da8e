"""The step guest-saverestore."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, SCRATCH, check_survived, guest_failure, read_life, require_gone, require_guest
from testcases._waiting import Stopwatch

SAVED: Final = f"{SCRATCH}/guest.save"


@step("guest-saverestore", timeout_s=600)
def guest_saverestore(ctx: StepContext) -> None:
    """The guest, saved to a file, is gone; restored, it goes on where it was, as a new domain."""
    host = ctx.host()
    before, domid = read_life(ctx, host), require_guest(host).domid
    watch = Stopwatch()
    host.toolstack.save(GUEST, SAVED)
    saved = watch.seconds
    try:
        require_gone(host, "xl save")
        watch = Stopwatch()
        host.toolstack.restore(SAVED)
        restored = watch.seconds
    finally:
        host.shell.run("rm", "-f", SAVED, check=False)
    state = require_guest(host)
    if state.domid == domid:
        raise guest_failure(host, f"{host.name}: a restored guest is a new domain, but it still is {domid}")
    check_survived(ctx, before, [host], "save and restore")
    ctx.runvars.set("guest_domid", state.domid)
    ctx.runvars.set("save_s", saved)
    ctx.runvars.set("restore_s", restored)
    ctx.log(f"{host.name}: saved in {saved} s, restored in {restored} s, domain {domid} became {state.domid}")
