"""The step libvirt-check."""

from __future__ import annotations

from lab.errors import ConfigError
from lab.flights.steps import StepContext, step


@step("libvirt-check", timeout_s=120)
def libvirt_check(ctx: StepContext) -> None:
    """libvirt's daemon answers in dom0 and drives Xen, and the job's guests go through it."""
    if ctx.runvars.get("toolstack") != "libvirt":
        raise ConfigError("this recipe proves libvirt, but the job's guests go by xl", hint="set toolstack=libvirt")
    host = ctx.host()
    version = host.toolstack.version()
    ctx.runvars.set(f"{ctx.role}_toolstack_version", version)
    ctx.log(f"{host.name}: {version}")
