"""When a host that one job has set up serves the next one as it is.

As in OSSTest: only within one flight, only after a job that passed, and only when every input of the set-up is the
same. The inputs are declared here; the set-up steps get runvars that refuse to read anything else.
"""

from __future__ import annotations

import hashlib
from typing import Final

from lab.flights.runvars import Runvars

HOST_INPUTS: Final = (
    "arch", "dom0_image", "dom0_mem", "flask", "guest_image", "host_start", "stubdom_image", "xen_boot_append",
    "xenbuildjob",
)  # fmt: skip
"""Runvars that decide how a host is set up (guest and stub domain, because dom0 gets them on its read-only media).

A build job's name says what it built: jobs of one flight that name the same one boot the same."""

_RESOLVED: Final = ("build_key", "tools_key")
"""What a build job gave, written when the job that needs it starts."""


def readable_inputs(role: str) -> frozenset[str]:
    """What the set-up steps of `role` may read."""
    names = (*HOST_INPUTS, *_RESOLVED)
    return frozenset(names) | {f"{role}_{name}" for name in names}


def may_reuse(runvars: Runvars) -> bool:
    """Whether a job may take a host over as it stands; one that says how its hosts are to come up must see them do."""
    return runvars.get("host_start", "auto") == "auto"


def setup_key(role: str, runvars: Runvars) -> str:
    """Name the set-up that `role` needs; equal keys mean interchangeable hosts (16 hex digits)."""
    values = [f"{name}={runvars.for_role(role, name)}" for name in HOST_INPUTS]
    return hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
