"""The step stubdom-labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lab.flights.steps import StepContext, step
from testcases._flask import parse_labels
from testcases._guests import GUEST, Guest, stubdom_of

GUEST_TYPE: Final = "domU_t"
STUBDOM_TYPE: Final = "dm_dom_t"
"""What a device model needs, and no more: to serve the one guest that is its target."""


@step("stubdom-labels", timeout_s=60)
def stubdom_labels(ctx: StepContext) -> None:
    """Under XSM the guest and its stub domain have labels of different types, each with the rights of its own."""
    guest, stubdom = Guest(ctx, ctx.host()), stubdom_of(ctx.runvars)
    guest.require_listed()
    said = guest.host.shell.run("xl", "list", "-Z").stdout
    expected = {GUEST: GUEST_TYPE, **({stubdom: STUBDOM_TYPE} if stubdom else {})}
    if problem := label_problem(parse_labels(said), expected):
        raise guest.failure(problem, output=said)
    ctx.log(f"{guest.host.name}: {', '.join(f'{name} is a {type_name}' for name, type_name in expected.items())}")


def label_problem(labels: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """Which domain has not the type it should have (the third part of its label); None when each has."""
    for name, wanted in expected.items():
        label = labels.get(name, "none")
        if label.split(":")[2:3] != [wanted]:
            return f"{name!r} should have a label of type {wanted}, but has {label}"
    return None
