"""The step guest-pvshim."""

from __future__ import annotations

import json

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, Guest
from testcases._xl_output import banner_version, in_series, parse_xl_info


@step("guest-pvshim", timeout_s=60)
def guest_pvshim(ctx: StepContext) -> None:
    """The PV guest runs on a Xen of its own: what the host's Xen runs is a PVH guest, and in it a Xen said so.

    The shim is of the host's series, and the guest's kernel finds itself on Xen as a PV guest (see guest-console).
    """
    guest = Guest(ctx, ctx.host())
    shell = guest.host.shell
    listed = shell.run("xl", "list", "-l", GUEST).stdout
    if (kind := configured_type(listed)) != "pvh":
        raise guest.failure(f"what the host's Xen runs should be a PVH guest, but is {kind}", output=listed[:4000])
    said = guest.console.text()
    if "Command line: pv-shim" not in said:
        raise guest.failure("a Xen should say on the guest's console that it starts as a shim, but none does")
    info = parse_xl_info(shell.run("xl", "info").stdout)
    series, shim = f"{info.get('xen_major')}.{info.get('xen_minor')}", banner_version(said) or "nothing"
    if not in_series(shim, series):
        raise guest.failure(f"the shim should be a Xen {series}, but says that it is {shim}")
    ctx.log(f"{guest.host.name}: Xen {series} runs the guest on Xen {shim}")


def configured_type(listed: str) -> str:
    """The type of the first domain in `xl list -l`; what it says otherwise."""
    try:
        return str(json.loads(listed)[0]["config"]["c_info"]["type"])
    except (ValueError, LookupError, TypeError):
        return repr(listed[:80])
