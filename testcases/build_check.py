"""The step build-check."""

from __future__ import annotations

from lab.errors import Blocked, ConfigError
from lab.flights.steps import StepContext, step
from testcases.fault_inject import find_fault


@step("build-check", timeout_s=60)
def build_check(ctx: StepContext) -> None:
    """Everything the job boots has been built: the images its runvars name exist. Otherwise the job is blocked."""
    if fault := ctx.runvars.get("fault"):
        find_fault(fault)  # a misspelt fault would break nothing, and the job would seem to prove that nobody notices
    try:
        target = ctx.boot_target()
        guest = ctx.runvars.get("guest_image")
        if guest:
            ctx.guest_files(guest)
    except ConfigError as error:
        raise Blocked(f"not built: {error.message}", hint=error.hint) from error
    files = [target.hypervisor, target.kernel, target.initramfs, *([target.media] if target.media else [])]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise Blocked(f"not built: {', '.join(missing)} is missing")
    ctx.log(f"{ctx.role} boots {target.key}; guest image {guest or 'none'}")
