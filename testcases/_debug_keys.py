"""Debug keys: what Xen and dom0's kernel print of themselves on the serial console when they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lab.flights.steps import StepContext
from lab.hosts.protocols import HostAccess

XEN_KEYS: Final = "dqregm"
"""Registers of each CPU, domains, run queues, event channels, grants, memory: where a hang or a leak shows."""

LINUX_KEYS: Final = "mw"
"""dom0's memory, and its processes that wait for something for long."""

TO_XEN: Final = b"\x01\x01\x01"
"""Ctrl-A three times: what is typed on the serial console goes to Xen now, and no longer to dom0."""

QUIET_S: Final = 0.6
LIMIT_S: Final = 8.0


def ask_dom0(ctx: StepContext, host: HostAccess) -> bytes:
    """What the debug keys print when dom0 asks for them; Xen's go through the toolstack, Linux' through sysrq."""
    linux = "; ".join(f"echo {key} >/proc/sysrq-trigger" for key in LINUX_KEYS)
    script = f"xl debug-keys {XEN_KEYS}; echo 1 >/proc/sys/kernel/sysrq; {linux}"
    return _printed(ctx, host, lambda: host.shell.script(script, timeout_s=20, check=False))


def ask_xen(ctx: StepContext, host: HostAccess) -> bytes:
    """What Xen prints when its keys are typed on the serial console: it may answer when dom0 does not any more."""
    return _printed(ctx, host, lambda: host.console.write(TO_XEN + XEN_KEYS.encode()))


def _printed(ctx: StepContext, host: HostAccess, ask: Callable[[], object]) -> bytes:
    """What the console has after `ask`, until it is quiet again."""
    start = seen = host.console.offset()
    ask()
    began = quiet_since = time.monotonic()
    while (now := time.monotonic()) < began + LIMIT_S and (seen == start or now < quiet_since + QUIET_S):
        ctx.wait(0.1)
        if host.console.offset() != seen:
            seen, quiet_since = host.console.offset(), time.monotonic()
    return host.console.read(start)
