"""The step dom0-type."""

from __future__ import annotations

from typing import Final

from lab.errors import Evidence, LabBug, StepFailure
from lab.flights.steps import StepContext, step
from testcases._readings import read_all

TYPES: Final = ("PV", "PVH")


@step("dom0-type", timeout_s=60)
def dom0_type(ctx: StepContext) -> None:
    """Dom0 is of the type it should be (`type`): its own kernel finds itself so, and Xen says that it built it so."""
    wanted = ctx.args.get("type", "")
    if wanted not in TYPES:
        raise LabBug(f"dom0-type: there is no {wanted!r}")
    host = ctx.host()
    readings = read_all(host.shell, {"kernel": "cat /sys/hypervisor/guest_type", "log": "xl dmesg"})
    kernel, log = readings["kernel"].output.strip(), readings["log"].output
    # Xen's log is a ring, of which the start may be gone; the console was recorded
    built = log + host.console.read(0).decode(errors="replace")
    if kernel != wanted:
        raise StepFailure(
            f"{host.name}: dom0 should be {wanted}, but its kernel says that it is {kernel[:40]!r}",
            evidence=Evidence(
                host=host.name, command="cat /sys/hypervisor/guest_type", output=readings["kernel"].output
            ),
        )
    if f"Building a {wanted} Dom0" not in built:
        raise StepFailure(
            f"{host.name}: Xen should say that it builds a {wanted} dom0, but does not",
            evidence=Evidence(host=host.name, command="xl dmesg", output=log[:8000]),
        )
    ctx.log(f"{host.name}: dom0 is {wanted}")
