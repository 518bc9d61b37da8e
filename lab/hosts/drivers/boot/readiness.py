"""What a console says of a boot: that dom0 is ready, or why it never will be."""

from __future__ import annotations

import re
from typing import NoReturn

from lab.errors import Evidence, HostDiedError, InfraError, StepFailure
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.shell.ssh import SshShell
from lab.hosts.symptoms import panic_reason

READY = "LAB-HOST-READY"
SETTLE_S = 1.0
"""How long the rest of a panic takes to be recorded."""

_XEN_PANIC = re.compile(rb"\(XEN\)[^\n]*(?:Panic on CPU|Xen BUG at|FATAL TRAP|FATAL PAGE FAULT)[^\n]*")
_XEN_BANNER = re.compile(rb"\(XEN\)[^\n]*Xen version|Xen version \d")


def boot_ends(mark: str) -> re.Pattern[bytes]:
    """How a boot ends, one way or the other; `mark` is what this boot says when it is ready."""
    return re.compile(
        rb"LAB-HOST-READY " + mark.encode() + rb"\b|LAB-HOST-FAILED[^\r\n]*[\r\n]|"
        rb"Kernel panic - not syncing[^\r\n]*[\r\n]|" + _XEN_PANIC.pattern
    )


def raise_what_was_said(name: str, said: str, console: RecordedConsole, since: int, *, output: str) -> None:
    """A panic of Xen is a `StepFailure`, what dom0 says of itself an `InfraError`; nothing when `said` is neither."""
    evidence = Evidence(host=name, output=output, console_tail=console.tail(since))
    start = console.read(since, since + (1 << 20))
    if said.startswith("(XEN)") and _XEN_BANNER.search(start):
        reason = panic_reason(console.tail(since, limit=1 << 16)) or said
        raise StepFailure(f"{name}: Xen panicked while booting: {reason}", evidence=evidence)
    if said.startswith(("LAB-HOST-FAILED", "Kernel panic")):
        raise InfraError(f"{name}: dom0 did not come up: {said}", evidence=evidence)


def broke_off(
    name: str, reason: str, console: RecordedConsole, since: int, *, output: str = "", hint: str = ""
) -> NoReturn:
    """Raise the `InfraError` of a boot that came to nothing."""
    evidence = Evidence(host=name, output=output, console_tail=console.tail(since))
    raise InfraError(f"{name}: {reason}", hint=hint, evidence=evidence)


def open_shell(name: str, shell: SshShell, timeout_s: float) -> None:
    """Connect to a dom0 that says it is ready."""
    try:
        shell.close()
        shell.connect(timeout_s=timeout_s)
    except HostDiedError as error:
        raise InfraError(
            f"{name}: dom0 is ready but its shell does not answer: {error.message}", evidence=error.evidence
        ) from error
