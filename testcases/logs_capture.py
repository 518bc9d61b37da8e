"""The step logs-capture."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Final

from lab.errors import InfraError, StepFailure
from lab.flights.steps import SkipStep, StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._debug_keys import ask_dom0, ask_xen
from testcases._readings import read_all

COMMANDS: Final = {
    "xl-info": "xl info -n",
    "xl-list": "xl list -v",
    "xl-vcpu-list": "xl vcpu-list",
    "xl-dmesg": "xl dmesg",
    "xenstore": "xenstore-ls -fp",
    "dmesg": "dmesg",
    "ps": "ps -o pid,ppid,args",
    "free": "free; df -k",
    "network": "ip addr; ip route; bridge link",
    "losetup": "losetup -a",
    "cpuinfo": "cat /proc/cpuinfo",
    "interrupts": "cat /proc/interrupts",
    "event-channels": "lsevtchn 0",
    "modules": "cat /proc/modules",
    "guest-configs": "tail -n +1 /run/lab/*.cfg 2>/dev/null; true",
}
# With limits: a daemon that hangs must not cost what comes after it.
OF_LIBVIRT: Final = {
    "virsh-list": "timeout 20 virsh -c xen:///system 'version; nodeinfo; list --all'",
    "virsh-dumpxml": "timeout 20 virsh -c xen:///system list --all --name | while read -r name; do "
    '[ -z "$name" ] || timeout 20 virsh -c xen:///system dumpxml "$name" </dev/null; done',
}
# Twice, to tell a CPU that hangs from one that works.
AFTER_FAILURE: Final = {
    "xenctx": "for turn in 1 2; do xl list | while read -r name domid rest; do case $domid in [1-9]*) "
    'echo "turn $turn: $name ($domid)"; xenctx -C "$domid" </dev/null;; esac; done; sleep 1; done',
}
FILE_LIMIT: Final = 1 << 20
TAIL: Final = 256 << 10


@step("logs-capture", timeout_s=180)
def logs_capture(ctx: StepContext) -> None:
    """Keep what the host can tell of the job: Xen's and dom0's state and logs, and every guest's console.

    After a failure its debug keys and the state of its guests' CPUs are kept, too. Of a host that does not answer any
    more, the end of its serial console is kept, and what Xen says to debug keys typed there; then the step fails.
    """
    host = ctx.host()
    for name, path in host.logs.items():
        if path.is_file():
            ctx.save(f"{file_name(name)}.log", path.read_bytes()[-FILE_LIMIT:])
    try:
        if ctx.failed:
            ctx.save("debug-keys.txt", ask_dom0(ctx, host)[-FILE_LIMIT:])
        of_libvirt = OF_LIBVIRT if ctx.runvars.get("toolstack") == "libvirt" else {}
        after_failure = AFTER_FAILURE if ctx.failed else {}
        readings = read_all(host.shell, COMMANDS | of_libvirt | after_failure, timeout_s=90)
        files = _log_files(host)
    except (StepFailure, InfraError):
        _keep_console(ctx, host)
        if host.power.get() is False and not ctx.runvars.get(f"{ctx.role}_xen_version"):
            raise SkipStep(f"{host.name}: the job ended before it booted") from None
        raise
    for name, reading in readings.items():
        ended = "" if reading.exit_status == 0 else f"\n[exit status {reading.exit_status}]\n"
        ctx.save(f"{name}.txt", (reading.output + ended).encode())
    for path_name, text in files:
        ctx.save(path_name, text.encode())
    ctx.log(f"{host.name}: kept {len(readings)} command outputs and {len(files)} log files")


def _keep_console(ctx: StepContext, host: HostAccess) -> None:
    """All that is left to ask a host whose dom0 does not answer."""
    ctx.save("serial-console.txt", host.console.read(max(0, host.console.offset() - TAIL)))
    if host.power.get() is False:
        return
    try:
        said = ask_xen(ctx, host)
    except (InfraError, OSError) as error:
        ctx.log(f"{host.name}: nothing can be typed on its serial console: {error}")
        return
    ctx.save("debug-keys.txt", said)
    ctx.log(f"{host.name}: dom0 does not answer; to debug keys on the serial console Xen said {len(said)} bytes")


def _log_files(host: HostAccess) -> list[tuple[str, str]]:
    """The ends of all log files of Xen and libvirt, in one command; a guest's name is part of some of their names."""
    token = secrets.token_hex(8)
    result = host.shell.script(
        "find /var/log/xen /var/log/libvirt -type f 2>/dev/null | while read -r file; do "
        f'printf \'\\n@@{token} %s\\n\' "$file"; tail -c {TAIL} "$file"; done',
        timeout_s=60,
        check=False,
    )
    return list(split_files(result.stdout, token))


def split_files(output: str, token: str) -> Iterator[tuple[str, str]]:
    """(name to keep it under, text) of each file in an output where `@@TOKEN PATH` comes before each."""
    parts = re.split(rf"\n@@{token} (.*)\n", output)
    seen: set[str] = set()
    for path, text in zip(parts[1::2], parts[2::2], strict=True):
        name = file_name(path.removeprefix("/var/log/").removeprefix("xen/"))
        while name in seen:
            name += "-"
        seen.add(name)
        yield name, text


def file_name(text: str) -> str:
    """A name that may be kept under: letters, digits, dots and dashes.

    >>> file_name("console/guest-a b.log")
    'console-guest-a-b.log'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip(".-")[:100] or "log"
