"""The driver table: which code drives a host whose `lab.toml` entry names a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.hosts.drivers import embedded, metal
from lab.hosts.protocols import DEFAULT_TOOLSTACK, Guard, HostAccess, Power, no_guard
from lab.labfile import LabFile


@dataclass(frozen=True)
class Driver:
    """How hosts of one method are opened (with a toolstack by its name); `power` must work whatever state one is in."""

    open: Callable[[LabFile, str, Path, str], HostAccess]
    power: Callable[[LabFile, str, Path], Power]


DRIVERS: Mapping[str, Driver] = {
    "qemu": Driver(open=embedded.open_host, power=embedded.power_of),
    "metal": Driver(open=metal.open_host, power=metal.power_of),
}


@dataclass(frozen=True)
class LabMachines:
    """The `Machines` of a lab file. `home` is the lab's home: run folders of its hosts are below it."""

    lab: LabFile
    home: Path

    def open(self, host: str, *, toolstack: str = DEFAULT_TOOLSTACK, guard: Guard = no_guard) -> HostAccess:
        """The host's abilities; `ConfigError` if the lab has no such host, or there is no such toolstack."""
        access = self._driver(host).open(self.lab, host, self.home, toolstack)
        access.attend(guard=guard)
        return access

    def power_off(self, host: str) -> None:
        """Switch the host off whatever state it is in. Idempotent."""
        self._driver(host).power(self.lab, host, self.home).set(False)

    def _driver(self, host: str) -> Driver:
        return DRIVERS[self.lab.settings(host).driver.method]
