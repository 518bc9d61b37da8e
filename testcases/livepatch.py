"""The step livepatch."""

from __future__ import annotations

from typing import Final

from lab.errors import Blocked, ConfigError, Evidence, LabBug, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._guests import SCRATCH
from testcases._livepatch import ORDER, REFUSED, SAYS, parse_patches
from testcases._xl_output import parse_xl_info

TRIES: Final = 10

ORIGINAL: Final = "livepatch_original"
"""The runvar with what Xen says while nothing is patched."""


@step("livepatch", timeout_s=180)
def livepatch(ctx: StepContext) -> None:
    """The running Xen is patched, changes what it does, and goes back, by the test patches of its own tree.

    *apply* loads one and another on top; *replace* puts a third in the place of both; *revert* takes it away, leaves
    no patch, and lets Xen refuse one that was not made for it. What Xen says of itself is looked at every time.
    """
    match ctx.args.get("mode"):
        case "apply":
            _put(ctx)
            ctx.runvars.set(ORIGINAL, _says(ctx.host()))
            for name in ("xen_hello_world", "xen_bye_world"):
                _upload(ctx.host(), name)
                _act(ctx, "apply", name, expected=SAYS[name])
        case "replace":
            _expect(ctx, SAYS["xen_bye_world"], "since it was patched")
            _upload(ctx.host(), "xen_replace_world")
            _act(ctx, "replace", "xen_replace_world", expected=SAYS["xen_replace_world"])
            _expect_states(ctx, xen_replace_world="APPLIED", xen_hello_world="CHECKED", xen_bye_world="CHECKED")
        case "revert":
            _revert(ctx)
        case mode:
            raise LabBug(f"livepatch has no mode {mode!r}")


def _put(ctx: StepContext) -> None:
    """Bring the patches that were built with the job's Xen to its host."""
    host, key = ctx.host(), ctx.runvars.for_role(ctx.role, "build_key")
    if not key:
        raise Blocked(
            f"{host.name}: a live patch fits the very build of Xen it was made with, and Debian's package has none",
            hint="give the job a Xen that is built from source",
        )
    folder = ctx.builds.find(key).folder / "livepatch"
    for name in ORDER:
        try:
            data = (folder / f"{name}.livepatch").read_bytes()
        except OSError as error:
            raise Blocked(f"the build {key} has no {name}.livepatch: its tree has no test patches") from error
        host.shell.put(f"{SCRATCH}/{name}.livepatch", data)


def _revert(ctx: StepContext) -> None:
    host, original = ctx.host(), ctx.runvars.get(ORIGINAL)
    if not original:
        raise ConfigError(f"there is no runvar {ORIGINAL}", hint="mode apply comes first in the recipe")
    _act(ctx, "revert", "xen_replace_world", expected=original)
    for name in SAYS:
        _run(host, "unload", name)
    refused = host.shell.run("xen-livepatch", "upload", REFUSED, f"{SCRATCH}/{REFUSED}.livepatch", check=False)
    if refused.exit_status == 0:
        raise _failure(host, f"Xen should refuse {REFUSED}, which does not say for which Xen it is", refused.output)
    _expect_states(ctx)
    _expect(ctx, original, "after every patch was taken away")
    host.shell.script(f"rm -f {SCRATCH}/*.livepatch")


def _upload(host: HostAccess, name: str) -> None:
    _run(host, "upload", name, f"{SCRATCH}/{name}.livepatch")


def _act(ctx: StepContext, verb: str, name: str, *, expected: str) -> None:
    _run(ctx.host(), verb, name)
    _expect(ctx, expected, f"after {verb} of {name}")
    ctx.log(f"{ctx.host().name}: {verb} {name}: Xen says {expected!r}")


def _run(host: HostAccess, *arguments: str) -> None:
    """Run xen-livepatch; again, when Xen says that it was busy.

    All CPUs have to meet within 30 ms for a patch to go in or out. Those of an emulated host may be late, and then
    nothing was changed.
    """
    result = host.shell.run("xen-livepatch", *arguments, check=False)
    for _ in range(TRIES):
        if "resource busy" not in result.output:
            break
        result = host.shell.run("xen-livepatch", *arguments, check=False)
    if result.exit_status != 0:
        log = host.shell.script("xl dmesg | tail -n 20", check=False)
        raise _failure(host, f"xen-livepatch {' '.join(arguments[:2])} failed", result.output + log.output)


def _says(host: HostAccess) -> str:
    return parse_xl_info(host.shell.run("xl", "info").stdout).get("xen_extra", "")


def _expect(ctx: StepContext, expected: str, when: str) -> None:
    if (seen := _says(ctx.host())) != expected:
        raise _failure(ctx.host(), f"Xen should say {expected!r} {when}, but says {seen!r}", "")


def _expect_states(ctx: StepContext, **expected: str) -> None:
    listed = ctx.host().shell.run("xen-livepatch", "list")
    if (seen := parse_patches(listed.stdout)) != expected:
        raise _failure(ctx.host(), f"the patches should be {expected or 'none'}, but are {dict(seen)}", listed.output)


def _failure(host: HostAccess, message: str, output: str) -> StepFailure:
    return StepFailure(f"{host.name}: {message}", evidence=Evidence(host=host.name, output=output))
