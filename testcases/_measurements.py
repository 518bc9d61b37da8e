"""Figures that a job takes several times: none is lost to the next one."""

from __future__ import annotations

import re

from lab.flights.runvars import Runvars
from testcases._guests import Guest


def add_measurement(runvars: Runvars, name: str, value: object) -> None:
    """Put a figure behind those that the runvar `name` has already; blanks are between them."""
    runvars.set(name, f"{runvars.get(name)} {value}".strip())


def largest_gap(guest: Guest) -> int:
    """The largest step of the guest's wall clock since its agent was asked to forget, in milliseconds."""
    reply = guest.ask("gap")
    found = re.search(r"\bmaxgap_ms=([0-9]+)\b", reply.text)
    if not found:
        raise guest.failure(f"the guest should tell its largest gap, but said {reply.text!r}")
    return int(found[1])
