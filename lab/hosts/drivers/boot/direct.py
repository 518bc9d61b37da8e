"""Boot of an embedded host: QEMU loads Xen and dom0 itself, and the console says when dom0 is ready."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from lab.errors import ConfigError, Evidence, HostDiedError, InfraError, StepFailure
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.machine.architecture import check_arguments
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import QemuPower
from lab.hosts.drivers.shell.ssh import SshShell
from lab.hosts.power import switch
from lab.hosts.protocols import BootTarget, Guard, Started, no_guard
from lab.hosts.symptoms import panic_reason

_XEN_PANIC = re.compile(rb"\(XEN\)[^\n]*(?:Panic on CPU|Xen BUG at|FATAL TRAP|FATAL PAGE FAULT)[^\n]*")
_XEN_BANNER = re.compile(rb"\(XEN\)[^\n]*Xen version|Xen version \d")
_SETTLE_S = 1.0
_RESTORED_LIMIT_S = 60.0


@dataclass(frozen=True)
class DirectBoot:
    """The `Boot` of a host that QEMU boots without firmware's help."""

    place: Place
    power: QemuPower
    console: RecordedConsole
    shell: SshShell
    guard: Guard = no_guard

    def set_target(self, target: BootTarget) -> None:
        """Take effect at the next power-on; `ConfigError` when an argument is not allowed or a file is not there."""
        check_arguments(target)
        for path in (target.hypervisor, target.kernel, target.initramfs, target.media, *target.overlays):
            if path is not None and not path.is_file():
                raise ConfigError(f"boot target {target.key}: there is no file {path}")
        self.place.save_target(target)

    def wait_ready(self, *, timeout_s: float, guard: Guard = no_guard) -> None:
        """Return once dom0 says it is ready and its shell answers.

        A panic of Xen is a `StepFailure`; anything else that goes wrong is an `InfraError`, at once where it shows.
        A host that does not get ready from a checkpoint is booted from cold instead; only that counts.
        """
        record = self.place.boot()
        if record is not None and record.start == "checkpoint":
            try:
                self._wait_ready(timeout_s=min(timeout_s, _RESTORED_LIMIT_S), guard=guard)
                return
            except (InfraError, StepFailure) as error:
                guard()  # what ends the wait as a whole is no fault of the checkpoint
                self.power.discard(record.checkpoint)
                switch(self.power, False, wait=self.power.wait)
                switch(self.power, True, wait=self.power.wait)
                self.place.add_note(f"from checkpoint {record.checkpoint[:8]} it did not get ready: {error.message}")
        self._wait_ready(timeout_s=timeout_s, guard=guard)

    def started(self) -> Started:
        """How the host came up."""
        record = self.place.boot()
        if record is None:
            raise InfraError(f"{self.place.name}: was never powered on")
        return Started(start=record.start, note=record.note)

    def _wait_ready(self, *, timeout_s: float, guard: Guard) -> None:
        until = time.monotonic() + timeout_s
        record = self.place.boot()
        if record is None:
            raise InfraError(f"{self.place.name}: was never powered on")
        ready = re.compile(
            rb"LAB-HOST-READY " + record.mark.encode() + rb"\b|LAB-HOST-FAILED[^\r\n]*[\r\n]|"
            rb"Kernel panic - not syncing[^\r\n]*[\r\n]|" + _XEN_PANIC.pattern
        )

        class _OffError(Exception):
            """The machine is off; look at what the console said last."""

        def check() -> None:
            guard()
            if not self.power.get():
                raise _OffError

        try:
            found = self.console.wait_for(ready, since=record.console_offset, timeout_s=timeout_s, guard=check)
            off = False
        except _OffError:
            off = True
            found = self.console.wait_for(ready, since=record.console_offset, timeout_s=0.0)
        said = found.group().decode(errors="replace").strip() if found is not None else ""
        if said.startswith("LAB-HOST-READY") and not off:
            self.power.keep()
            self._open_shell(max(5.0, until - time.monotonic()))
            return
        if found is not None and not said.startswith("LAB-HOST-READY"):
            self.power.wait(_SETTLE_S)  # let the rest of the panic be recorded
        self._explain(said, off, timeout_s, record.console_offset)

    def _explain(self, said: str, off: bool, timeout_s: float, since: int) -> None:
        name = self.place.name
        evidence = Evidence(host=name, output=self.power.died(), console_tail=self.console.tail(since))
        start = self.console.read(since, since + (1 << 20))
        if said.startswith("(XEN)") and _XEN_BANNER.search(start):
            reason = panic_reason(self.console.tail(since, limit=1 << 16)) or said
            raise StepFailure(f"{name}: Xen panicked while booting: {reason}", evidence=evidence)
        if said.startswith(("LAB-HOST-FAILED", "Kernel panic")):
            raise InfraError(f"{name}: dom0 did not come up: {said}", evidence=evidence)
        if off:
            hint = f"see {self.place.qemu_log}"
            raise InfraError(f"{name}: the machine went off while booting", hint=hint, evidence=evidence)
        raise InfraError(f"{name}: dom0 was not ready within {timeout_s:.0f} s", evidence=evidence)

    def _open_shell(self, timeout_s: float) -> None:
        try:
            self.shell.close()
            self.shell.connect(timeout_s=timeout_s)
        except HostDiedError as error:
            raise InfraError(
                f"{self.place.name}: dom0 is ready but its shell does not answer: {error.message}",
                evidence=error.evidence,
            ) from error
