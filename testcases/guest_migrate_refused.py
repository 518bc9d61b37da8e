"""The step guest-migrate-refused."""

from __future__ import annotations

from dataclasses import replace

from lab.errors import LabBug, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._guests import GUEST, Guest, check_survived, guest_config
from testcases._sabotage import kill_receiver
from testcases._waiting import Stopwatch, until
from testcases.guest_migrate import role_of


@step("guest-migrate-refused", timeout_s=600)
def guest_migrate_refused(ctx: StepContext) -> None:
    """A migration that the target does not take fails and says so, and the guest lives on unharmed where it was.

    How it is refused: *taken*: at the end, because a guest of this name runs on the target; *cut*: in the middle,
    because the receiver dies. Nothing of the guest is left on the target.
    """
    source, target = (Guest(ctx, ctx.host(role_of(ctx, end))) for end in ("source", "target"))
    domid = source.require_listed().domid
    target.require_none("at first")
    before = source.life()
    match ctx.args.get("mode"):
        case "taken":
            _take_name(ctx, target.host)
        case "cut":
            kill_receiver(target.host)
        case mode:
            raise LabBug(f"guest-migrate-refused has no mode {mode!r}")
    watch = Stopwatch()
    try:
        source.host.toolstack.migrate(GUEST, target.host)
    except StepFailure as failure:
        ctx.log(f"refused after {watch.seconds} s, as it should be: {failure.message}")
    else:
        raise source.failure(f"{target.host.name} should refuse the guest, but took it")
    if ctx.args.get("mode") == "taken":
        target.require_listed()  # alone, and it is the one that was there
        target.host.toolstack.destroy(GUEST)
    if not until(ctx, lambda: not target.host.toolstack.guests() or None, limit_s=15):
        target.require_none("after the refused migration")
    if source.require_listed().domid != domid:
        raise source.failure(f"the guest should still be domain {domid}, but is another")
    after = check_survived(before, [source], f"a migration that {target.host.name} refused")
    ctx.log(f"{source.host.name}: heartbeats {before.beat.seq} to {after.beat.seq} without a hole, memory whole")


def _take_name(ctx: StepContext, host: HostAccess) -> None:
    """A guest of the same name, which stands still and has no network, runs on the host."""
    files = ctx.guest_files(ctx.runvars.require("guest_image"))
    config = guest_config(ctx.runvars, files, job=ctx.job, host_address=host.address)
    host.toolstack.create(replace(config, disks=(), bridge=None, mac=None))
    host.shell.run("xl", "pause", GUEST)
