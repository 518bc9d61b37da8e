"""What a job needs that a build of Xen or a host may lack: how to look, and what is missing. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lab.flights.runvars import Runvars
from testcases._guests import ARM
from testcases._readings import Reading
from testcases._schedulers import SCHEDULERS
from testcases._xl_output import in_series, parse_xl_info, parse_xl_list, promised_version, xen_version

INNER_HOST_MIB: Final = 1536
"""For a Xen in a guest, its dom0, and a guest of its own."""

Readings = Mapping[str, Reading]


@dataclass(frozen=True)
class Support:
    """A thing that may be missing: `missing` says why it is, from what the commands said; None when it is there."""

    missing: Callable[[Readings, Runvars], str | None]
    commands: Mapping[str, str] = field(default_factory=lambda: {"info": "xl info"})


def scheduler_missing(readings: Readings, runvars: Runvars) -> str | None:
    """Why the job's scheduler cannot run here: Xen has it not, or there are too few processors for it."""
    wanted = runvars.choice("scheduler", SCHEDULERS)
    info = parse_xl_info(readings["info"].output)
    if re.search(rf"Could not find scheduler: {wanted}\b", readings["log"].output):
        return f"this Xen was built without the scheduler {wanted}"
    if wanted == "null":
        taken = sum(domain.vcpus for domain in parse_xl_list(readings["domains"].output))
        needed = taken + runvars.integer("guest_vcpus", 1, low=1, high=128)
        have = int(info.get("nr_cpus", "0") or 0)
        if have < needed:
            return f"null gives each virtual CPU a processor of its own: {needed} are needed, the host has {have}"
    return None


def capability_missing(*names: str) -> Callable[[Readings, Runvars], str | None]:
    """Why this Xen on this host lacks one of the `virt_caps` called `names`."""

    def missing(readings: Readings, _runvars: Runvars) -> str | None:
        have = parse_xl_info(readings["info"].output).get("virt_caps", "").split()
        lacking = [name for name in names if name not in have]
        can = " ".join(have) or "nothing"
        return f"Xen cannot do {', '.join(lacking)} here (it can do: {can})" if lacking else None

    return missing


def live_migration_missing(readings: Readings, runvars: Runvars) -> str | None:
    """Why this Xen cannot migrate guests of the job's kind live.

    The pages a PV guest writes meanwhile are found with shadow page tables, which a build of Xen may lack (Debian's
    4.20 does). A guest with hardware virtualisation does not need them.
    """
    capabilities = parse_xl_info(readings["info"].output).get("virt_caps", "").split()
    if runvars.get("guest_kind") == "pv" and "shadow" not in capabilities:
        return f"Xen has no shadow paging, which live PV migration needs (it can do: {' '.join(capabilities)})"
    return None


def move_missing(*verbs: str) -> Callable[[Readings, Runvars], str | None]:
    """Why xl can do one of `verbs` (save, restore, migrate) with no guest at all.

    On Arm, Xen has none of it so far, and xl is built without the words. Where they are missing anywhere else, that
    is no lack of support but a failure, which the step will meet.
    """

    def missing(readings: Readings, runvars: Runvars) -> str | None:
        known = re.findall(r"^ ([a-z][a-z0-9-]*)(?=\s|$)", readings["help"].output, re.MULTILINE)
        lacking = [verb for verb in verbs if verb not in known]
        if lacking and runvars.get("arch") in ARM:
            return f"Xen on {runvars.get('arch')} cannot do it: its xl has no {' and no '.join(lacking)}"
        return None

    return missing


def first_missing(*reasons: Callable[[Readings, Runvars], str | None]) -> Callable[[Readings, Runvars], str | None]:
    """The first of several reasons why something is missing."""

    def missing(readings: Readings, runvars: Runvars) -> str | None:
        return next((why for reason in reasons if (why := reason(readings, runvars))), None)

    return missing


def pvshim_missing(readings: Readings, runvars: Runvars) -> str | None:
    """Why a Xen cannot run as a PV guest's shim here."""
    if reason := capability_missing("hvm")(readings, runvars):
        return reason
    if not readings["shim"].output.strip().endswith("xen-shim"):
        return "dom0 has no xen-shim"
    # Xen changes a setting of a K8 (its TLB flush filter) which it does not let its own guests change
    if re.search(r"CPU Vendor: AMD, Family 15 ", readings["log"].output) and not runvars.get("guest_cpu_family"):
        return "Xen as a guest does not start on an AMD processor of family 15 (set guest_cpu_family to hide it)"
    return None


def livepatch_missing(readings: Readings, _runvars: Runvars) -> str | None:
    """Why this Xen takes no live patches."""
    listed = readings["livepatch"]
    if listed.exit_status == 0:
        return None
    return f"this Xen was built without live patching: {_last_line(listed.output)}"


def dom0pvh_missing(readings: Readings, _runvars: Runvars) -> str | None:
    """Why dom0 cannot be a PVH domain here; None once it was booted as one."""
    info, log = parse_xl_info(readings["info"].output), readings["log"].output
    if "dom0=pvh" in info.get("xen_commandline", "").split():
        return None
    if "I/O virtualisation enabled" not in log:
        return "Xen builds a PVH dom0 only where it has an IOMMU, and this host has none"
    if re.search(r"ACPI: .*\bBOCHS\b", log):
        # seen with QEMU 7.2 and both of its IOMMUs, under TCG
        return "in a PVH dom0 of an emulated host the first request to a disk is never answered"
    return "this host may be able to: boot it so, with xen_boot_append=dom0=pvh"


def nested_missing(readings: Readings, runvars: Runvars) -> str | None:
    """Why no Xen with guests of its own can run in a guest here."""
    if reason := capability_missing("hvm", "hap")(readings, runvars):
        return reason
    free = parse_xl_info(readings["info"].output).get("free_memory", "")
    if not free.isdigit() or int(free) < INNER_HOST_MIB:
        return f"an inner host needs {INNER_HOST_MIB} MiB of memory, and {free or 'none'} MiB are free"
    return "an inner host needs a guest image that boots Xen and a dom0 of its own, and there is none"


def xtf_missing(_readings: Readings, _runvars: Runvars) -> str | None:
    """Why the Xen Test Framework cannot run here."""
    return "the Xen Test Framework is a tree of its own, which Debian does not have and this lab does not build"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it says nothing"


def stubdom_missing(readings: Readings, runvars: Runvars) -> str | None:
    """Why this host cannot run the job's Linux stub domain: the toolstack, the image or Xen itself does not fit."""
    info, image = parse_xl_info(readings["info"].output), runvars.require("stubdom_image")
    version, capabilities = xen_version(info) or "unknown", info.get("xen_caps", "").split()
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if number < (4, 14):
        return f"the toolstack of Xen {version} knows no Linux stub domains (4.14 and later do)"
    series = promised_version(image)
    if series and not in_series(version, series):
        return f"{image} holds programs of Xen {series}, but Xen {version} is running"
    # the guest needs the one, its stub domain (always a PV domain) the other
    for needed, what in (("hvm-3.0-x86_64", "HVM guests"), ("xen-3.0-x86_64", "PV guests, as a stub domain is one")):
        if needed not in capabilities:
            return f"this Xen runs no {what} here (xen_caps: {' '.join(capabilities) or 'none'})"
    if readings["proxy"].exit_status != 0:
        return "dom0 has no vchan-socket-proxy in its path, by which libxl speaks to the QEMU of a stub domain"
    return None


_HELP: Final = MappingProxyType({"help": "xl help"})

SUPPORT: Final[Mapping[str, Support]] = MappingProxyType(
    {
        "scheduler": Support(
            scheduler_missing, MappingProxyType({"info": "xl info", "log": "xl dmesg", "domains": "xl list"})
        ),
        "hvm": Support(capability_missing("hvm")),
        "stubdom": Support(
            stubdom_missing, MappingProxyType({"info": "xl info", "proxy": "command -v vchan-socket-proxy"})
        ),
        "pvh": Support(capability_missing("hvm")),
        "save-restore": Support(move_missing("save", "restore"), _HELP),
        "live-migration": Support(
            first_missing(move_missing("migrate"), live_migration_missing),
            MappingProxyType({"info": "xl info", **_HELP}),
        ),
        "shadow": Support(capability_missing("hvm", "shadow")),
        "pvshim": Support(
            pvshim_missing,
            MappingProxyType({"info": "xl info", "log": "xl dmesg", "shim": "ls /usr/lib/xen*/boot/xen-shim"}),
        ),
        "dom0pvh": Support(dom0pvh_missing, MappingProxyType({"info": "xl info", "log": "xl dmesg"})),
        "nested": Support(nested_missing),
        "xtf": Support(xtf_missing, MappingProxyType({})),
        "livepatch": Support(livepatch_missing, MappingProxyType({"livepatch": "xen-livepatch list"})),
    }
)
"""By the name a recipe line gives as `needs`."""
