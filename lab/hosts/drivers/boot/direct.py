"""Boot of an embedded host: QEMU loads Xen and dom0 itself, and the console says when dom0 is ready."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.errors import ConfigError, InfraError, StepFailure
from lab.hosts.drivers.boot.readiness import READY, SETTLE_S, boot_ends, broke_off, open_shell, raise_what_was_said
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.machine.architecture import check_arguments
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import QemuPower
from lab.hosts.drivers.shell.ssh import SshShell
from lab.hosts.power import switch
from lab.hosts.protocols import BootTarget, Guard, Started, no_guard

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
        ready = boot_ends(record.mark)

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
        if said.startswith(READY) and not off:
            self.power.keep()
            open_shell(self.place.name, self.shell, max(5.0, until - time.monotonic()))
            return
        if found is not None and not said.startswith(READY):
            self.power.wait(SETTLE_S)  # let the rest of the panic be recorded
        self._explain(said, off, timeout_s, record.console_offset)

    def _explain(self, said: str, off: bool, timeout_s: float, since: int) -> None:
        name, died = self.place.name, self.power.died()
        raise_what_was_said(name, said, self.console, since, output=died)
        if off:
            reason, hint = "the machine went off while booting", f"see {self.place.qemu_log}"
        else:
            reason, hint = f"dom0 was not ready within {timeout_s:.0f} s", ""
        broke_off(name, reason, self.console, since, output=died, hint=hint)
