"""The step guest-paging."""

from __future__ import annotations

import re

from lab.errors import LabBug
from lab.flights.steps import StepContext, step
from testcases._guests import Guest


@step("guest-paging", timeout_s=60)
def guest_paging(ctx: StepContext) -> None:
    """The guest's memory is translated as it should: by Xen's page tables (`by` shadow), or by the processor (hap).

    Xen itself says so, in what it dumps of its domains.
    """
    guest = Guest(ctx, ctx.host())
    state = guest.require_listed()
    wanted = ctx.args.get("by")
    if wanted not in {"shadow", "hap"}:
        raise LabBug(f"guest-paging: memory cannot be translated by {wanted!r}")
    dump = guest.host.shell.script("xl debug-keys q && xl dmesg").stdout
    seen = paging_of(dump, state.domid)
    if seen != wanted:
        raise guest.failure(f"Xen should translate the guest's memory by {wanted}, but does by {seen}", output=dump)
    ctx.log(f"{guest.host.name}: domain {state.domid} runs with {seen}")


def paging_of(dump: str, domid: int) -> str:
    """How a domain's memory is translated (hap, shadow or neither), by the newest dump of debug key q in Xen's log."""
    newest = dump.rpartition("'q' pressed")[2]
    head = "General information for domain"
    found = re.search(rf"{head} {domid}:(.*?)(?={head}|\Z)", newest, re.DOTALL)
    words = re.search(r"^\(XEN\).*?paging assistance: (.*)$", found[1] if found else "", re.MULTILINE)
    return next((word for word in words[1].split() if word in {"hap", "shadow"}), "neither") if words else "neither"
