"""The step xen-boot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from lab.errors import Evidence, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._readings import read_all
from testcases._xl_output import (
    Domain,
    banner_version,
    in_series,
    parse_xl_info,
    parse_xl_list,
    promised_version,
    xen_version,
)


@step("xen-boot", timeout_s=120)
def xen_boot(ctx: StepContext) -> None:
    """What runs is what was asked for: this very Xen, with a running domain 0, without a panic in its log."""
    host = ctx.host()
    target = ctx.boot_target() if ctx.runvars.for_role(ctx.role, "xenbuildjob") else None
    looks = {"info": "xl info", "list": "xl list", "dmesg": "xl dmesg"}
    if target is not None and target.checksums:
        looks["sums"] = checksum_command(target.checksums)
    readings = read_all(host.shell, looks)
    info = parse_xl_info(readings["info"].output)
    version = xen_version(info)
    if version is None:
        raise _failure(host, "`xl info` should name the hypervisor's version", readings["info"].output)
    ctx.runvars.set(f"{ctx.role}_xen_version", version)
    ctx.runvars.set(f"{ctx.role}_linux_version", info.get("release", "unknown"))

    image = ctx.runvars.for_role(ctx.role, "dom0_image")
    series = promised_version(image)
    if series and not in_series(version, series):
        raise _failure(host, f"{image} promises Xen {series}, but Xen {version} is running", readings["info"].output)

    if target is not None:
        sums = readings["sums"].output if "sums" in readings else ""
        if wrong := build_problem(target.build_id, info) or toolstack_problem(target.checksums, sums):
            raise _failure(host, wrong, readings["info"].output + sums)
        ctx.log(f"{host.name}: the running Xen is the compiled one, build id {target.build_id}")
        ctx.log(f"{host.name}: compiled programs, checked: {', '.join(target.checksums) or 'none'}")

    log = readings["dmesg"].output
    # Xen's log is a ring: after many guests the banner is overwritten there, but the recorded console has it
    banner = banner_version(log) or banner_version(host.console.read(0).decode(errors="replace"))
    if banner != version:
        raise _failure(host, f"Xen's log should have the banner of Xen {version}, but has that of {banner}", log[:4000])
    if panic := next((line for line in log.splitlines() if "Panic on CPU" in line), None):
        raise _failure(host, f"Xen's log has a panic: {panic.strip()}", log[-4000:])

    domains = parse_xl_list(readings["list"].output)
    if problem := domain0_problem(domains) or memory_problem(info, domains):
        raise _failure(host, problem, readings["list"].output + readings["info"].output)
    ctx.log(f"{host.name}: Xen {version}, Linux {info.get('release')}, {info.get('virt_caps', 'no virt_caps')}")


def domain0_problem(domains: Sequence[Domain]) -> str | None:
    """What is wrong with domain 0; it runs `xl list` itself, so it must be there, running, with memory and a CPU."""
    domain0 = next((domain for domain in domains if domain.domid == 0), None)
    if domain0 is None:
        return "`xl list` should have domain 0, but has not"
    if "r" not in domain0.state:
        return f"domain 0 should be running, but is in state {domain0.state!r}"
    if domain0.vcpus < 1 or domain0.memory_mib < 1:
        return f"domain 0 should have memory and a CPU, but has {domain0.memory_mib} MiB and {domain0.vcpus}"
    return None


def memory_problem(info: Mapping[str, str], domains: Sequence[Domain]) -> str | None:
    """What is wrong with the machine's memory as Xen counts it: what is free and what domains have must fit in it."""
    total, free = info.get("total_memory", ""), info.get("free_memory", "")
    if not (total.isdigit() and free.isdigit()) or int(total) == 0:
        return f"`xl info` should tell the machine's memory, but says total {total!r}, free {free!r}"
    used = sum(domain.memory_mib for domain in domains)
    if used + int(free) > int(total):
        return f"domains have {used} MiB and {free} MiB are free, but the machine has only {total} MiB"
    return None


def build_problem(build_id: str, info: Mapping[str, str]) -> str | None:
    """What is wrong with the running hypervisor when the one with this build id should run (empty: any)."""
    running = info.get("build_id", "none")
    if build_id and running != build_id:
        return f"the compiled Xen has build id {build_id}, but {running} is running"
    return None


def checksum_command(checksums: Mapping[str, str]) -> str:
    """Reads the checksums of these programs in dom0."""
    return " ".join(["sha256sum", *(shlex.quote(path) for path in sorted(checksums))])


def toolstack_problem(checksums: Mapping[str, str], output: str) -> str | None:
    """What is wrong when these programs should be in dom0, given what sha256sum said."""
    found = {path: digest for digest, _, path in (line.partition("  ") for line in output.splitlines())}
    for path, digest in sorted(checksums.items()):
        if found.get(path) != digest:
            return f"{path} should be the compiled one, but has checksum {found.get(path, 'none: it is not there')}"
    return None


def _failure(host: HostAccess, message: str, output: str) -> StepFailure:
    return StepFailure(f"{host.name}: {message}", evidence=Evidence(host=host.name, output=output))
