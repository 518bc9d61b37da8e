"""Guests by libvirt's daemon in dom0. Xen's own `xl` has to see the same guests."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import libvirt

from lab.errors import ConfigError, Evidence, StepFailure
from lab.hosts.drivers.guest.domainxml import domain_xml
from lab.hosts.drivers.guest.feed import LOGS, GuestFeed
from lab.hosts.drivers.guest.libvirtd import Libvirtd
from lab.hosts.drivers.guest.xl import checked_name, listed
from lab.hosts.drivers.guest.xlconsole import XlConsole
from lab.hosts.protocols import Guard, GuestConfig, GuestState, HostAccess, Shell, no_guard

_AGREE_S = 5.0
"""The daemon hears of a guest's end by an event: for so long it may lag behind Xen."""

_SENT = "/sys/class/net/xenbr0/statistics/tx_bytes"

_MIGRATION = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
)

# $1 the guest: the logs of an earlier guest of this name are not this one's.
_FORGET = f'xl domid "$1" >/dev/null 2>&1 || rm -f {LOGS}/guest-"$1".log {LOGS}/guest-"$1"--incoming.log'


@dataclass(frozen=True)
class LibvirtToolstack:
    """The `Toolstack` of a host whose dom0 runs libvirt's daemon.

    A guest is defined for as long as it is of use: from its creation until it was shut down or destroyed, and on the
    other host after a migration. Saved, it stays defined.
    """

    shell: Shell
    host: str
    feed: GuestFeed
    daemon: Libvirtd
    guard: Guard = no_guard
    wait: Callable[[float], None] = time.sleep
    script: str = "vif-lab"

    def version(self) -> str:
        """libvirt, and the version of the daemon in dom0; `StepFailure` when it drives no Xen."""
        kind, number = self.daemon.call("version", _kind_and_version)
        if kind != "Xen":
            raise StepFailure(f"{self.host}: libvirt should drive Xen, but drives {kind}")
        return f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    def create(self, config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        """Define and start a guest; one that does not start is not left defined."""
        xml, name = domain_xml(config, script=self.script), config.name
        self.shell.script(_FORGET, name)
        self.daemon.call(f"define {name}", lambda connection: connection.defineXML(xml))
        try:
            self._on(name, "start", lambda domain: domain.create(), timeout_s=timeout_s)
        except StepFailure:
            with contextlib.suppress(StepFailure):
                self._on(name, "undefine", lambda domain: domain.undefine())
            raise

    def guests(self) -> Sequence[GuestState]:
        """All domains but dom0, as Xen has them; `StepFailure` when libvirt sees others than xl does."""
        until = time.monotonic() + _AGREE_S
        while True:
            known = self.daemon.call("list", _active)
            seen = self.shell.run("xl", "list")
            guests = [guest for guest in listed(seen.stdout) if guest.domid != 0]
            if known == {(guest.name, guest.domid) for guest in guests}:
                return guests
            if time.monotonic() >= until:
                names = ", ".join(f"{name} ({domid})" for name, domid in sorted(known)) or "none"
                raise StepFailure(
                    f"{self.host}: libvirt and xl do not see the same guests: by libvirt there is {names}, by xl "
                    f"{', '.join(f'{guest.name} ({guest.domid})' for guest in guests) or 'none'}",
                    evidence=Evidence(host=self.host, command=seen.command, output=seen.output),
                )
            self.guard()
            self.wait(0.3)

    def find(self, name: str) -> GuestState | None:
        """The domain of this name, or None."""
        return next((guest for guest in self.guests() if guest.name == name), None)

    def shutdown(self, name: str, *, timeout_s: float = 200.0) -> None:
        """Ask the guest to shut down, wait until it is gone, and forget its definition."""
        until = time.monotonic() + timeout_s
        self._on(name, "shutdown", lambda domain: domain.shutdown())
        while (found := self.find(name)) is not None:
            crashed = "c" in found.state
            if crashed or time.monotonic() >= until:
                how = "crashed as it was to shut down" if crashed else f"did not shut down within {timeout_s:.0f} s"
                raise StepFailure(
                    f"{self.host}: guest {name} {how}",
                    evidence=Evidence(host=self.host, console_tail=self.console(name).text()[-4000:]),
                )
            self.guard()
            self.wait(0.3)
        self._on(name, "undefine", lambda domain: domain.undefine())

    def destroy(self, name: str) -> None:
        """End the guest at once, and forget its definition."""
        self._on(name, "destroy", lambda domain: domain.destroy())
        self._on(name, "undefine", lambda domain: domain.undefine())

    def save(self, name: str, path: str, *, timeout_s: float = 200.0) -> None:
        """Suspend the guest to a file; it is gone from the host afterwards, but still defined."""
        self._on(name, "save", lambda domain: domain.save(path), timeout_s=timeout_s)

    def restore(self, path: str, *, timeout_s: float = 200.0) -> None:
        """Resume a saved guest."""
        self.daemon.call(f"restore {path}", lambda connection: connection.restore(path), timeout_s=timeout_s)

    def migrate_local(self, name: str, *, timeout_s: float = 400.0) -> None:  # noqa: ARG002 - the protocol's
        """Not to be had: libvirt refuses to migrate a guest to its own host."""
        raise ConfigError(
            f"{self.host}: libvirt does not migrate {name} to its own host", hint="use recipe test-libvirt, or xl"
        )

    def migrate(self, name: str, target: HostAccess, *, timeout_s: float = 400.0) -> int | None:
        """Live-migrate the guest to another host: the daemons do it between them (peer to peer), without encryption.

        Without an address for the stream, the target would name itself by a host name that nobody can look up.
        Returns what dom0 sent over the lab's network meanwhile: nearly all of it is the guest.
        """
        checked_name(name)
        address = _address(target.address)
        target.shell.script(_FORGET, name)
        before = self._sent()
        self._on(
            name,
            f"migrate to {target.name}",
            lambda domain: domain.migrateToURI3(
                f"xen+tcp://{address}/system", {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{address}"}, _MIGRATION
            ),
            timeout_s=timeout_s,
        )
        after = self._sent()
        if target.toolstack.find(name) is None:
            raise StepFailure(
                f"{target.name}: guest {name} did not arrive, though libvirt on {self.host} says that it moved there",
                evidence=Evidence(host=target.name, console_tail=self.console(name).text()[-4000:]),
            )
        if self.find(name) is not None:
            raise StepFailure(f"{self.host}: guest {name} is still here after its migration")
        return None if before is None or after is None else after - before

    def console(self, name: str) -> XlConsole:
        """The guest's console."""
        return XlConsole(feed=self.feed, host=self.host, name=checked_name(name), guard=self.guard)

    def close(self) -> None:
        """Let the connection to the daemon and the guests' consoles go."""
        self.daemon.close()
        self.feed.close()

    def _sent(self) -> int | None:
        """How many bytes dom0 has sent over the bridge since it was made; None when it does not say."""
        said = self.shell.run("cat", _SENT, check=False).stdout.strip()
        return int(said) if said.isdecimal() else None

    def _on(self, name: str, what: str, action: Callable[[Any], object], *, timeout_s: float = 60.0) -> None:
        """Do something to the domain of this name."""
        checked_name(name)

        def act(connection: Any) -> None:
            action(connection.lookupByName(name))

        self.daemon.call(f"{what} {name}", act, timeout_s=timeout_s)


def _active(connection: Any) -> set[tuple[str, int]]:
    """(name, number) of every running domain but dom0, as the daemon knows them."""
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    return {(domain.name(), domain.ID()) for domain in domains if domain.ID() != 0}


def _address(text: str) -> str:
    """The address as part of a URI; `ConfigError` when it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(f"{text[:60]!r} is not an IP address") from error
    return f"[{address}]" if address.version == 6 else str(address)


def _kind_and_version(connection: Any) -> tuple[str, int]:
    return connection.getType(), connection.getLibVersion()
