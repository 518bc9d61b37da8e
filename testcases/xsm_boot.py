"""The step xsm-boot."""

from __future__ import annotations

from typing import Final

from lab.flights.steps import StepContext, step
from lab.flights.xsm import type_of
from testcases._flask import Flask, denied_in, shown, since_boot, unexpected

DOM0: Final = "dom0_t"


@step("xsm-boot", timeout_s=60)
def xsm_boot(ctx: StepContext) -> None:
    """FLASK runs in the mode that was asked for, dom0 has its label, and booting was denied nothing."""
    host, flask = ctx.host(), Flask(ctx.host())
    wanted = ctx.runvars.require("flask").capitalize()
    if (mode := flask.mode()) != wanted:
        raise flask.failure(f"FLASK should be {wanted}, but is {mode}"[:300], output=flask.log()[-4000:])
    labels = flask.labels()
    if type_of(labels.get("Domain-0", "none")) != DOM0:
        raise flask.failure(f"domain 0 should have the label {DOM0}, but has {labels.get('Domain-0')}")
    boot = since_boot(host.console.read(0).decode(errors="replace"))
    if boot is None:
        ctx.log(f"{host.name}: its console does not have its boot any more")
    elif denied := unexpected(denied_in(boot)):
        raise flask.failure(f"FLASK denied something while the host booted: {shown(denied)}", output=boot[-8000:])
    # from here on xsm-audit counts
    ctx.runvars.set(f"{ctx.role}_xsm_from", host.console.offset())
    ctx.log(f"{host.name}: FLASK is {mode}; " + ", ".join(f"{name} is {label}" for name, label in labels.items()))
