"""Power drivers: `open_power` makes the power of a machine out of its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabBug
from lab.hosts.drivers.power.chain import Link, PowerChain
from lab.hosts.drivers.power.command import CommandSwitch, ManualSwitch
from lab.hosts.drivers.power.domain import DomainSwitch
from lab.hosts.drivers.power.ipmi import IpmiSwitch
from lab.hosts.drivers.power.pdudaemon import PdudaemonSwitch
from lab.hosts.drivers.power.queue import Queued
from lab.hosts.protocols import Power
from lab.machine_settings.power import (
    CommandPower,
    IpmiPower,
    LibvirtPower,
    ManualPower,
    PdudaemonPower,
    PowerSettings,
    RedfishPower,
    SnmpPower,
)
from lab.secrets import Secrets


def open_power(settings: Sequence[PowerSettings], secrets: Secrets, home: Path) -> PowerChain:
    """The power of a machine with these switches, the preferred one first; nothing is asked yet."""
    return PowerChain([_link(one, secrets, home / "locks") for one in settings])


def _link(settings: PowerSettings, secrets: Secrets, locks: Path) -> Link:
    device, power = _switch(settings, secrets)
    if device:
        power = Queued(power, locks, device)
    if isinstance(settings, ManualPower):
        return Link(name="a person", power=power, tries=1, settle_s=0)
    return Link(name=settings.method, power=power, tries=settings.tries, settle_s=settings.settle_s)


def _switch(settings: PowerSettings, secrets: Secrets) -> tuple[str, Power]:
    """What must be used by one at a time (empty: nothing), and the switch. Libraries are loaded when needed."""
    match settings:
        case IpmiPower():
            return f"{settings.address}:{settings.port}", IpmiSwitch(settings, secrets)
        case RedfishPower():
            from lab.hosts.drivers.power.redfish import RedfishSwitch

            return settings.url, RedfishSwitch(settings, secrets)
        case SnmpPower():
            from lab.hosts.drivers.power.snmp import SnmpSwitch

            return f"{settings.address}:{settings.port}", SnmpSwitch(settings, secrets)
        case PdudaemonPower():
            return "", PdudaemonSwitch(settings)  # it has a queue of its own for each PDU
        case LibvirtPower():
            return "", DomainSwitch(settings)
        case CommandPower():
            return "", CommandSwitch(settings)
        case ManualPower():
            return "", ManualSwitch(settings)
    raise LabBug(f"no driver for {settings.method}")
