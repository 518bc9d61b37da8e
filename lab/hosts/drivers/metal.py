"""A real machine's abilities, put together: its switches, its console, its boot over the network, its dom0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import MappingProxyType

from lab.errors import LabBug
from lab.hosts.drivers.attention import Attention
from lab.hosts.drivers.boot.network import NetworkBoot
from lab.hosts.drivers.boot.store import BootStore
from lab.hosts.drivers.console.keeper import keep_console
from lab.hosts.drivers.console.recorded import RecordedConsole
from lab.hosts.drivers.guest.toolstacks import Toolstack, open_toolstack
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.power import open_power
from lab.hosts.drivers.power.chain import PowerChain
from lab.hosts.drivers.power.remembered import Remembered
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.drivers.shell.ssh import Endpoint, SshShell
from lab.hosts.protocols import DEFAULT_TOOLSTACK, Guard, Trace, no_guard, no_trace
from lab.labfile import LabFile, MetalSettings
from lab.secrets import Secrets


@dataclass(frozen=True)
class MetalPower:
    """The switches of a machine, and what is done before they are used: its boot target is handed out, or no more."""

    switches: PowerChain
    arm: Callable[[], None]
    disarm: Callable[[], None]
    forget: Callable[[], None] = lambda: None

    def set(self, on: bool) -> None:
        """Switch. A machine that is on already boots nothing new."""
        if on:
            if self.switches.get() is not True:
                self.arm()
        else:
            self.disarm()
        try:
            self.switches.set(on)
        finally:
            self.forget()

    def get(self) -> bool | None:
        """What the switches say."""
        return self.switches.get()


@dataclass(frozen=True, kw_only=True)
class MetalHost:
    """The `HostAccess` of a real machine."""

    name: str
    address: str
    power: MetalPower
    console: RecordedConsole
    boot: NetworkBoot
    shell: SshShell
    toolstack: Toolstack
    logs: Mapping[str, Path]
    attention: Attention

    def attend(self, *, guard: Guard = no_guard, trace: Trace = no_trace) -> None:
        """Serve another step from now on."""
        self.attention.turn_to(guard, trace)

    def close(self) -> None:
        """Let go of the connections; the console goes on being recorded."""
        self.toolstack.close()
        self.shell.close()


def settings_of(lab: LabFile, name: str) -> MetalSettings:
    """How a host is reached; `LabBug` when it is no real machine."""
    settings = lab.settings(name).driver
    if not isinstance(settings, MetalSettings):
        raise LabBug(f"{name} is no real machine")
    return settings


def power_of(lab: LabFile, name: str, home: Path) -> MetalPower:
    """The host's power alone: what can be used whatever state the machine is in. Hands nothing out at power-on."""
    settings = settings_of(lab, name)
    store = BootStore(home / "boot")

    def disarm() -> None:
        store.disarm(settings.boot.mac)

    return MetalPower(open_power(settings.power, Secrets(home), home), disarm, disarm)


def open_host(lab: LabFile, name: str, home: Path, toolstack: str = DEFAULT_TOOLSTACK) -> MetalHost:
    """All abilities of the host. Its console is recorded from now on; nothing else is started or connected yet."""
    settings = settings_of(lab, name)
    place, secrets = Place(home, name), Secrets(home)
    place.create()
    attention = Attention()
    guard = attention.guard
    address = IPv4Interface(settings.address)
    console = keep_console(
        name, settings.console, secrets, place.folder, place.socket("x").removesuffix(".x"), place.uuid, guard=guard
    )
    switches = open_power(settings.power, secrets, home)
    seen = Remembered(switches)

    def endpoint() -> Endpoint | None:
        if place.boot() is None:
            return None
        identity = identity_of(place.folder / "identity")
        return Endpoint(
            address=str(address.ip), port=22, client_key=identity.client_key_file, host_public=identity.host_public
        )

    def tail() -> str:
        record = place.boot()
        return console.tail(record.console_offset if record is not None else 0)

    shell = SshShell(name, endpoint, alive=seen.get, tail=tail, guard=guard, trace=attention.trace)
    boot = NetworkBoot(
        place=place,
        settings=settings.boot,
        address=address,
        gateway=IPv4Address(settings.gateway) if settings.gateway else None,
        base=f"{lab.boot.url}/boot",
        store=BootStore(home / "boot"),
        power=switches,
        alive=seen.get,
        console=console,
        shell=shell,
        guard=guard,
    )

    return MetalHost(
        name=name,
        address=str(address.ip),
        power=MetalPower(switches, boot.arm, boot.disarm, seen.forget),
        console=console,
        boot=boot,
        shell=shell,
        toolstack=open_toolstack(
            toolstack, name, shell, place.socket("libvirt"), alive=seen.get, guard=guard, trace=attention.trace
        ),
        logs=MappingProxyType({"console line": place.folder / "line.log"}),
        attention=attention,
    )
