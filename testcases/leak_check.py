"""The step leak-check."""

from __future__ import annotations

from typing import Final

from lab.errors import Evidence, InfraError, LabBug, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._leaks import INVENTORY_COMMANDS, Inventory, dump_basis, inventory, leaked, load_basis
from testcases._readings import read_all

BASIS: Final = "/root/leak-basis.json"
GRACE_S: Final = 3.0
"""Tearing a guest down goes on for a moment after the toolstack has returned; what is left after this is a leak."""


@step("leak-check", timeout_s=180)
def leak_check(ctx: StepContext) -> None:
    """Nothing is left on the host that was not there before the job's guests: *basis* takes stock, *check* compares.

    Looked at: domains, processes (device models among them), xenstore, loop and nbd devices, network interfaces,
    mounts, event channels to guests, Xen's free memory, files in the places Xen and the lab use.
    """
    host = ctx.host()
    match ctx.args.get("mode"):
        case "basis":
            seen = _look(host)
            host.shell.put(BASIS, dump_basis(ctx.job, seen))
            ctx.log(f"{host.name}: " + ", ".join(f"{len(names)} {kind}" for kind, names in seen.items()))
        case "check":
            _check(ctx, host)
        case mode:
            raise LabBug(f"leak-check has no mode {mode!r}")


def _check(ctx: StepContext, host: HostAccess) -> None:
    basis = load_basis(ctx.job, host.shell.get(BASIS))
    if basis is None:
        raise InfraError(f"{host.name}: {BASIS} is not what leak-check/basis of this job wrote")
    new = leaked(basis, _look(host))
    if new:
        ctx.log(f"{host.name}: looking again for: " + ", ".join(f"{kind} {name}" for kind, name in new))
        ctx.wait(GRACE_S)
        new = leaked(basis, _look(host))
    if new:
        shown = ", ".join(f"{kind} {name[:120]}" for kind, name in new[:10]) + (" …" if len(new) > 10 else "")
        raise StepFailure(
            f"{host.name}: {len(new)} leaked object{'s' if len(new) > 1 else ''}: {shown}",
            evidence=Evidence(host=host.name, output="\n".join(f"{kind} {name}" for kind, name in new)),
        )
    ctx.log(f"{host.name}: nothing is left that was not there before")


def _look(host: HostAccess) -> Inventory:
    readings = read_all(host.shell, INVENTORY_COMMANDS)
    for name in ("domain", "process", "xenstore"):
        if readings[name].exit_status != 0:
            raise StepFailure(
                f"{host.name}: `{INVENTORY_COMMANDS[name]}` should tell what is there, but failed",
                evidence=Evidence(
                    host=host.name,
                    command=INVENTORY_COMMANDS[name],
                    exit_status=readings[name].exit_status,
                    output=readings[name].output,
                ),
            )
    return inventory({name: reading.output for name, reading in readings.items()})
