"""The step xen-install."""

from __future__ import annotations

from lab.flights.steps import StepContext, step


@step("xen-install", timeout_s=300)
def xen_install(ctx: StepContext) -> None:
    """Make the job's Xen and dom0 what the host boots at its next power-on."""
    target = ctx.boot_target()
    ctx.host().boot.set_target(target)
    ctx.log(f"{ctx.host().name} will boot {target.key}")
    ctx.log(f"Xen: {' '.join(target.xen_args)}; dom0: {' '.join(target.dom0_args)}")
