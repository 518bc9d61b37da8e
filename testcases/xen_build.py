"""The step xen-build."""

from __future__ import annotations

from lab.errors import Blocked, ConfigError, LabBug
from lab.flights.builds import HYPERVISOR, PARTS, POLICIES, TOOLS, XSM, build_request
from lab.flights.steps import SkipStep, StepContext, step


@step("xen-build", timeout_s=3600)
def xen_build(ctx: StepContext) -> None:
    """The revision compiles: *hypervisor* in the job's configuration, XSM *policies*, or *tools*.

    A failure is the compiler's error.
    """
    part = ctx.args.get("part")
    if part not in PARTS:
        raise LabBug(f"xen-build has no part {part!r}")
    request = build_request(ctx.runvars)
    try:
        ctx.builds.check(request)
    except ConfigError as error:
        raise Blocked(error.message, hint=error.hint) from error
    if part == TOOLS and request.arch != "amd64":
        raise SkipStep(f"the toolstack is compiled for amd64 only; on {request.arch} dom0's image brings its own")
    if part == TOOLS and ctx.runvars.get("xen_tools") == "packaged":
        raise SkipStep("the toolstack is that of dom0's image, as xen_tools=packaged asks")
    if part == POLICIES and request.config != XSM:
        raise SkipStep(f"without XSM there is no policy; this build is configured as {request.config}")
    built = ctx.builds.make(request, part, guard=ctx.guard, log=ctx.log, save=ctx.save)
    if part == HYPERVISOR:
        if built.hypervisor is None or not built.build_id:
            raise ConfigError("the compiled Xen has no build id", hint="is the linker too old for --build-id?")
        ctx.runvars.set("build_key", built.key)
        ctx.runvars.set("build_commit", built.commit)
        ctx.runvars.set("build_id", built.build_id)
        ctx.runvars.set("build_version", built.version)
    else:
        ctx.runvars.set(f"{part}_key", built.key)
    ctx.log(f"{part}: Xen {built.version}, {built.folder}, compiled in {built.seconds} s")
