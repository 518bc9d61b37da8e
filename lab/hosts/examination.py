"""What a host showed when it was examined, and what its line in the lab's file should say then. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lab.hosts.model import Host

FLAGS: Final = frozenset({"pv", "hvm", "hap", "shadow", "iommu", "smp", "serial-input"})
"""The flags an examination can find. What is none of them (equiv-…, site names) is the administrator's alone."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Flags and properties that a running host showed; properties as text."""

    flags: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def findings(
    info: Mapping[str, str], log: str, cpuinfo: str, *, boot_s: str = "", serial_input: bool = False
) -> Findings:
    """What a host is, from `xl info`, its Xen's boot log and dom0's /proc/cpuinfo; what is not told is left out."""
    flags = {flag for flag in info.get("virt_caps", "").split() if flag in FLAGS}
    cpus, memory = info.get("nr_cpus", ""), info.get("total_memory", "")
    if cpus.isdigit() and int(cpus) > 1:
        flags.add("smp")
    if "I/O virtualisation enabled" in log:
        flags.add("iommu")
    if serial_input:
        flags.add("serial-input")
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    implementer = re.search(r"^CPU implementer\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    family = re.search(r"CPU Vendor: \S+, Family ([0-9]+)", log)
    found = {
        "cpus": cpus,
        "memory_mib": memory,
        "cpu_vendor": (vendor or implementer or [""] * 2)[1],
        "cpu_family": family[1] if family else "",
        "scheduler": info.get("xen_scheduler", ""),
        "xen_features": " ".join(_compiled_in(log)),
        "boot_s": boot_s,
    }
    return Findings(flags=frozenset(flags), properties={name: value for name, value in found.items() if value})


def _compiled_in(log: str) -> list[str]:
    found = re.search(r"Compiled-in support: ([A-Z0-9_ ]+)", log)
    return found[1].lower().split() if found else []


def proposal(host: Host, found: Findings) -> tuple[str, ...]:
    """What to change in the host's entry of the lab's file, a line each; nothing when it says what was found."""
    lacking, wrong = sorted(found.flags - host.flags), sorted((host.flags & FLAGS) - found.flags)
    lines = [f"flag {flag}: found, but not configured" for flag in lacking]
    lines += [f"flag {flag}: configured, but not found" for flag in wrong]
    for name, value in sorted(found.properties.items()):
        configured = host.properties.get(name)
        if configured is None:
            lines.append(f"property {name} = {value}: found, but not configured")
        elif str(configured) != value:
            lines.append(f"property {name}: configured as {configured}, but {value} was found")
    return tuple(lines)


def written(found: Findings) -> Mapping[str, str]:
    """The findings as runvars of the role they were made in (the role's name goes before each)."""
    return {"found_flags": " ".join(sorted(found.flags)), **{f"found_{k}": v for k, v in found.properties.items()}}


def read(role: str, runvars: Mapping[str, str]) -> Findings:
    """The findings that `written` put into the runvars of a job."""
    start = f"{role}_found_"
    found = {name.removeprefix(start): value for name, value in runvars.items() if name.startswith(start)}
    return Findings(flags=frozenset(found.pop("flags", "").split()), properties=found)
