"""The toolstacks a host's guests are handled with, by name."""

from __future__ import annotations

from collections.abc import Callable

from lab.errors import ConfigError
from lab.hosts.drivers.guest.feed import LOGS, GuestFeed
from lab.hosts.drivers.guest.libvirt import LibvirtToolstack
from lab.hosts.drivers.guest.libvirtd import Libvirtd
from lab.hosts.drivers.guest.xl import XlToolstack
from lab.hosts.drivers.shell.ssh import SshShell
from lab.hosts.protocols import Guard, Trace

Toolstack = XlToolstack | LibvirtToolstack


def open_toolstack(
    kind: str,
    name: str,
    shell: SshShell,
    socket: str,
    *,
    alive: Callable[[], bool | None],
    guard: Guard,
    trace: Trace,
) -> Toolstack:
    """The toolstack called `kind`, over the host's shell; nothing is connected yet. `socket` is where libvirt's is
    reached on this machine. `ConfigError` when there is none of that name."""
    feed = GuestFeed(name, lambda: shell.start("guest-consoles", LOGS), guard)
    match kind:
        case "xl":
            return XlToolstack(shell, name, feed, guard)
        case "libvirt":
            daemon = Libvirtd(name, shell, socket, shell.dial, alive=alive, guard=guard, trace=trace)
            return LibvirtToolstack(shell, name, feed, daemon, guard)
        case _:
            raise ConfigError(f"there is no toolstack {kind!r}", hint="xl or libvirt")
