"""An embedded host's abilities, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lab.errors import LabBug
from lab.hosts.drivers.attention import Attention
from lab.hosts.drivers.boot.direct import DirectBoot
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.guest.toolstacks import Toolstack, open_toolstack
from lab.hosts.drivers.machine.checkpoint_store import CheckpointStore
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import ARCHITECTURES, NETWORK, QemuPower
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.drivers.shell.ssh import Endpoint, SshShell
from lab.hosts.protocols import DEFAULT_TOOLSTACK, Guard, Trace, no_guard, no_trace
from lab.labfile import LabFile, QemuSettings


@dataclass(frozen=True, kw_only=True)
class EmbeddedHost:
    """The `HostAccess` of a host that is a QEMU process of this machine."""

    name: str
    address: str
    power: QemuPower
    console: RecordedConsole
    boot: DirectBoot
    shell: SshShell
    toolstack: Toolstack
    logs: Mapping[str, Path]
    attention: Attention

    def attend(self, *, guard: Guard = no_guard, trace: Trace = no_trace) -> None:
        """Serve another step from now on."""
        self.attention.turn_to(guard, trace)

    def close(self) -> None:
        """Let go of the connections."""
        self.toolstack.close()
        self.shell.close()


def power_of(lab: LabFile, name: str, home: Path) -> QemuPower:
    """The host's power alone."""
    host = lab.settings(name)
    if not isinstance(host.driver, QemuSettings):
        raise LabBug(f"{name} is no emulated machine")
    return QemuPower(
        place=Place(home, name),
        settings=host.driver,
        index=lab.index_of(name),
        arch=ARCHITECTURES[host.arch],
        checkpoints=CheckpointStore(home / "checkpoints", lab.lab.checkpoints_mib),
    )


def open_host(lab: LabFile, name: str, home: Path, toolstack: str = DEFAULT_TOOLSTACK) -> EmbeddedHost:
    """All abilities of the host; nothing is started or connected yet."""
    power = power_of(lab, name, home)
    place = power.place
    attention = Attention()
    guard = attention.guard
    console = RecordedConsole(name, place.console_log, place.console_index, place.socket("console"), guard)

    def endpoint() -> Endpoint | None:
        record = place.boot()
        if record is None:
            return None
        identity = identity_of(place.folder / "identity")
        return Endpoint(
            address="127.0.0.1", port=record.ssh_port, client_key=identity.client_key_file,
            host_public=identity.host_public,
        )  # fmt: skip

    def tail() -> str:
        record = place.boot()
        return console.tail(record.console_offset if record is not None else 0)

    shell = SshShell(name, endpoint, alive=power.get, tail=tail, guard=guard, trace=attention.trace)

    return EmbeddedHost(
        name=name,
        address=f"{NETWORK}.{power.index}",
        power=power,
        console=console,
        boot=DirectBoot(place, power, console, shell, guard),
        shell=shell,
        toolstack=open_toolstack(
            toolstack, name, shell, place.socket("libvirt"), alive=power.get, guard=guard, trace=attention.trace
        ),
        logs=MappingProxyType({"qemu": place.qemu_log}),
        attention=attention,
    )
