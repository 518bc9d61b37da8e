"""Boot of a real machine over the network: what it boots is handed out for one boot, and its console tells the end.

The machine, its network card and its firmware are not ours: all that is known of a boot is what was asked of the boot
service (`store`), what the console said, and what the power says of itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

from lab.errors import ConfigError, Evidence, InfraError
from lab.hosts.bootscript import SCRIPT, ipxe_script
from lab.hosts.drivers.boot.initramfs import own_files, stage_initramfs
from lab.hosts.drivers.boot.readiness import READY, SETTLE_S, boot_ends, broke_off, open_shell, raise_what_was_said
from lab.hosts.drivers.boot.store import LAST, MEDIA, BootStore, Note
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.machine.architecture import XEN_ARGS, check_arguments
from lab.hosts.drivers.machine.place import BootRecord, Place
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.drivers.shell.ssh import SshShell
from lab.hosts.protocols import BootOrder, BootTarget, Guard, Power, Started, no_guard
from lab.image_formats import Entry
from lab.machine_settings.boot import NetworkBootSettings

ARMED_S: Final = 1800.0
"""How long what was armed is handed out: longer than any server's firmware takes."""

_SERVICE: Final = Path(__file__).with_name("metal_service.sh")
_LOOK_EVERY_S: Final = 2.0
_ASK_POWER_EVERY_S: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class NetworkBoot:
    """The `Boot` of a machine that boots over the network.

    `base` is the URL at which machines reach the boot service, `address` dom0's. `alive` says whether the machine is
    on; it is asked seldom.
    """

    place: Place
    settings: NetworkBootSettings
    address: IPv4Interface
    gateway: IPv4Address | None
    base: str
    store: BootStore
    power: Power
    alive: Callable[[], bool | None]
    console: RecordedConsole
    shell: SshShell
    guard: Guard = no_guard
    wait: Callable[[float], None] = time.sleep

    def set_target(self, target: BootTarget) -> None:
        """Take effect at the next power-on; `ConfigError` when an argument is not allowed or a file is not there."""
        check_arguments(target)
        for path in (target.hypervisor, target.kernel, target.initramfs, target.media, *target.overlays):
            if path is not None and not path.is_file():
                raise ConfigError(f"boot target {target.key}: there is no file {path}")
        self.place.save_target(target)

    def arm(self) -> None:
        """Have what was set as target handed out at the power-on that follows now; without one, the own disk boots."""
        self.place.create()
        target = self.place.target()
        mark, token, note = secrets.token_hex(8), "", "booted its own disk"
        if target is None:
            self.store.disarm(self.settings.mac)
        else:
            token = self._arm(target, mark)
            note = "booted over the network"
            if isinstance(self.power, BootOrder):
                self.power.boot_from_network()
        self.place.save_boot(
            BootRecord(
                mark=mark, ssh_port=22, console_offset=self.console.offset(), accel="", start="netboot", note=note,
                token=token, at=time.time(),
            )
        )  # fmt: skip

    def disarm(self) -> None:
        """Nothing is handed out any more."""
        self.store.disarm(self.settings.mac)

    def wait_ready(self, *, timeout_s: float, guard: Guard = no_guard) -> None:
        """Return once dom0 says it is ready and its shell answers.

        A panic of Xen is a `StepFailure`; anything else that goes wrong is an `InfraError`: one that says how far the
        machine came, as soon as it is certain.
        """
        until = time.monotonic() + timeout_s
        name, record = self.place.name, self._record()
        next_look = next_power = 0.0

        def check() -> None:
            nonlocal next_look, next_power
            guard()
            now = time.monotonic()
            if now < next_look:
                return
            next_look = now + _LOOK_EVERY_S
            asked = self.store.notes(record.token)
            if not asked and time.time() - record.at > self.settings.asks_within_s:
                self._never_asked(record)
            if now >= next_power:
                next_power = now + _ASK_POWER_EVERY_S
                if self.alive() is False:
                    self.wait(SETTLE_S)
                    raise _OffError

        off = False
        try:
            since = record.console_offset
            found = self.console.wait_for(boot_ends(record.mark), since=since, timeout_s=timeout_s, guard=check)
        except _OffError:
            off = True
            found = self.console.wait_for(boot_ends(record.mark), since=record.console_offset, timeout_s=0.0)
        said = found.group().decode(errors="replace").strip() if found is not None else ""
        if said.startswith(READY) and not off:
            open_shell(name, self.shell, max(5.0, until - time.monotonic()))
            return
        if said and not said.startswith(READY):
            self.wait(SETTLE_S)  # let the rest of the panic be recorded
        self._explain(record, said, timeout_s, off=off)

    def started(self) -> Started:
        """How the host came up."""
        record = self._record()
        return Started(start=record.start, note=record.note)

    def progress(self) -> str:
        """How far the last boot came, as far as the boot service can tell."""
        return how_far(self.store.notes(self._record().token))

    def _arm(self, target: BootTarget, mark: str) -> str:
        place, settings = self.place, self.settings
        identity = identity_of(place.folder / "identity")
        xen = [*settings.xen_args, *XEN_ARGS, *target.xen_args]
        dom0 = [*settings.dom0_args, *target.dom0_args]
        files = {"hypervisor": target.hypervisor, "kernel": target.kernel, LAST: place.folder / LAST}
        if target.media is not None:
            files[MEDIA] = target.media

        def script(token: str) -> str:
            base = f"{self.base}/{token}"
            conf = {
                "LAB_NAME": place.name, "LAB_IP": str(self.address), "LAB_MARK": mark, "LAB_UUID": place.uuid,
                "LAB_MAC": settings.mac,
            }  # fmt: skip
            if self.gateway is not None:
                conf["LAB_GATEWAY"] = str(self.gateway)
            if target.media is not None:
                conf["LAB_MEDIA"] = f"{base}/{MEDIA}"
            service = [Entry.folder("etc/lab/services"), Entry.file("etc/lab/services/00-metal", _service(), 0o755)]
            stage_initramfs(place.name, target, own_files(conf, identity, service), place.folder / LAST)
            return ipxe_script(place.name, base, xen, dom0)

        try:
            return self.store.arm(settings.mac, host=place.name, script=script, files=files, for_s=ARMED_S)
        except OSError as error:
            raise InfraError(f"{place.name}: what it is to boot cannot be handed out: {error}") from error

    def _record(self) -> BootRecord:
        record = self.place.boot()
        if record is None:
            raise InfraError(f"{self.place.name}: was never powered on")
        return record

    def _never_asked(self, record: BootRecord) -> None:
        name, since = self.place.name, self.settings.asks_within_s
        raise InfraError(
            f"{name}: powered on, but did not ask for its boot script within {since:.0f} s",
            hint="its firmware must boot from the network first, by the card with the MAC address of the lab's file; "
            "and DHCP must send it to this lab",
            evidence=Evidence(host=name, console_tail=self.console.tail(record.console_offset)),
        )

    def _explain(self, record: BootRecord, said: str, timeout_s: float, *, off: bool) -> None:
        name, since = self.place.name, record.console_offset
        far = how_far(self.store.notes(record.token))
        raise_what_was_said(name, said, self.console, since, output=far)
        reason = "the machine went off while booting" if off else f"dom0 was not ready within {timeout_s:.0f} s"
        if not off and self.console.offset() == since:
            reason += ", and its console has said nothing since power-on"
        if gaps := self.console.gaps(since):
            reason += f"; {gaps[-1]}"
        broke_off(name, f"{reason}; {far}", self.console, since, output=far)


class _OffError(Exception):
    """The machine is off; look at what the console said last."""


def how_far(notes: Sequence[Note]) -> str:
    """How far a machine came, from what it has asked of the boot service.

    >>> how_far([])
    'it never asked for its boot script'
    >>> how_far([Note(at=0.0, what="boot.ipxe", by="10.0.0.7"), Note(at=1.0, what="kernel", by="10.0.0.7")])
    'it asked for its boot script, and last for kernel'
    """
    asked = [note.what for note in notes]
    if not asked:
        return "it never asked for its boot script"
    if asked[-1] == SCRIPT:
        return "it asked for its boot script, and for nothing after that"
    if MEDIA in asked:
        return "dom0 came up and asked for its media"
    if asked[-1] == LAST:
        return "it has fetched all that Xen needs"
    return f"it asked for its boot script, and last for {asked[-1]}"


def _service() -> bytes:
    return _SERVICE.read_bytes()
