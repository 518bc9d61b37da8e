"""The step examine."""

from __future__ import annotations

import re
from typing import Final

from lab.errors import StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.examination import findings, written
from lab.hosts.protocols import HostAccess
from testcases._debug_keys import TO_XEN
from testcases._readings import read_all
from testcases._xl_output import parse_xl_info

SWITCHED: Final = re.compile(rb"Serial input to (?:Xen|DOM0|dom0|domain)", re.IGNORECASE)
SERIAL_LIMIT_S: Final = 5.0


@step("examine", timeout_s=120)
def examine(ctx: StepContext) -> None:
    """The host tells what it is: its CPUs and memory, what Xen can do on it, and whether its serial console listens.

    What was found is kept in runvars; `lab host show` holds it against what the lab's file says.
    """
    host = ctx.host()
    readings = read_all(host.shell, {"info": "xl info", "log": "xl dmesg", "cpuinfo": "cat /proc/cpuinfo"})
    info = parse_xl_info(readings["info"].output)
    if not info.get("virt_caps") and not info.get("xen_caps"):
        raise StepFailure(f"{host.name}: `xl info` should tell what Xen can do here, but does not")
    found = findings(
        info,
        # Xen's log is a ring, of which the start may be gone; the console was recorded
        readings["log"].output + host.console.read(0).decode(errors="replace"),
        readings["cpuinfo"].output,
        boot_s=ctx.runvars.get(f"{ctx.role}_boot_s"),
        serial_input=_listens(ctx, host),
    )
    for name, value in written(found).items():
        ctx.runvars.set(f"{ctx.role}_{name}", value)
    ctx.log(f"{host.name}: {' '.join(sorted(found.flags))}")
    ctx.log(f"{host.name}: " + ", ".join(f"{name} {value}" for name, value in sorted(found.properties.items())))


def _listens(ctx: StepContext, host: HostAccess) -> bool:
    """Whether Xen hears what is typed on the serial console; it is asked to listen, and then no longer to."""
    heard = 0
    for _ in range(2):
        start = host.console.offset()
        host.console.write(TO_XEN)
        heard += host.console.wait_for(SWITCHED, since=start, timeout_s=SERIAL_LIMIT_S, guard=ctx.guard) is not None
    return heard == 2
