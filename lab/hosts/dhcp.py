"""The configuration of dnsmasq, which gives machines their addresses and hands them the first boot script. Pure.

Two ways: *full*, where dnsmasq is the network's only DHCP server, and *proxy*, where another one gives the addresses
and dnsmasq adds the boot file alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

from lab.errors import ConfigError

MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
START_SCRIPT: Final = "start.ipxe"
"""The first script's name on the TFTP server (see `lab.hosts.bootscript.start_script`)."""

LOADERS: Final = {"bios": "undionly.kpxe", "efi-x86_64": "ipxe.efi", "efi-arm64": "ipxe-arm64.efi"}
"""iPXE by the kind of firmware that fetches it; the Debian package ipxe has them in /usr/lib/ipxe."""

_FIRMWARE: Final = (("efi-x86_64", (7, 9)), ("efi-arm64", (11,)))
_SYSTEMS: Final = (
    ("x86PC", "bios"), ("X86-64_EFI", "efi-x86_64"), ("BC_EFI", "efi-x86_64"), ("ARM64_EFI", "efi-arm64"),
)  # fmt: skip
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")
_FOLDER: Final = re.compile(r"/[A-Za-z0-9._/-]{0,200}")


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A machine that always gets the same address."""

    name: str
    mac: str
    address: IPv4Address


@dataclass(frozen=True, kw_only=True)
class BootNetwork:
    """The network by which machines boot: dnsmasq listens on `interface` as `server`, and serves `tftp_root`."""

    interface: str
    server: IPv4Address
    network: IPv4Network
    tftp_root: str
    mode: Literal["full", "proxy"] = "full"


def dnsmasq_config(net: BootNetwork, machines: Sequence[Reservation]) -> str:
    """The whole configuration file; `ConfigError` when a field could be read as more than itself.

    A machine's firmware is given iPXE; iPXE, which says that it is one, is given the lab's first script. In full mode
    only `machines` get addresses.
    """
    _check(net, machines)
    proxy = net.mode == "proxy"
    given = f"{net.network.network_address},proxy" if proxy else f"{net.network.network_address},static"
    lines = [
        "# Written by `lab dhcp-config`; changes are lost.",
        "port=0",  # no DNS
        f"interface={net.interface}",
        "bind-interfaces",
        f"dhcp-range={given},{net.network.netmask}{'' if proxy else ',1h'}",
        "enable-tftp",
        f"tftp-root={net.tftp_root}",
        "dhcp-match=set:ipxe,175",
        *(f"dhcp-match=set:{kind},option:client-arch,{number}" for kind, numbers in _FIRMWARE for number in numbers),
        *_boot_files(net.server, proxy=proxy),
    ]
    if not proxy:
        lines += ["dhcp-option=option:router", "dhcp-ignore=tag:!known"]
        lines += [f"dhcp-host={one.mac},{one.address},{one.name}" for one in machines]
    return "\n".join([*lines, ""])


def _boot_files(server: IPv4Address, *, proxy: bool) -> list[str]:
    kinds = [kind for kind, _ in _FIRMWARE]
    if not proxy:
        # Of the lines that apply, dnsmasq takes the first with the most tags.
        lines = [f"dhcp-boot=tag:ipxe,{START_SCRIPT},,{server}"]
        lines += [f"dhcp-boot=tag:!ipxe,tag:{kind},{LOADERS[kind]},,{server}" for kind in kinds]
        bios = "".join(f"tag:!{kind}," for kind in ("ipxe", *kinds))
        return [*lines, f"dhcp-boot={bios}{LOADERS['bios']},,{server}"]
    lines = []
    for system, kind in _SYSTEMS:
        lines.append(f'pxe-service=tag:!ipxe,{system},"lab",{LOADERS[kind]},{server}')
        lines.append(f'pxe-service=tag:ipxe,{system},"lab",{START_SCRIPT},{server}')
    return [*lines, f"dhcp-boot=tag:ipxe,{START_SCRIPT},,{server}"]


def _check(net: BootNetwork, machines: Sequence[Reservation]) -> None:
    for what, value, allowed in (
        ("an interface", net.interface, _INTERFACE),
        ("a folder for TFTP", net.tftp_root, _FOLDER),
        *(("a host's name", one.name, _NAME) for one in machines),
        *(("a MAC address", one.mac, MAC) for one in machines),
    ):
        if not allowed.fullmatch(value):
            raise ConfigError(f"{value[:60]!r} is not {what}")
    if net.server not in net.network:
        raise ConfigError(f"the boot service {net.server} is not on the network {net.network}")
    for one in machines:
        if net.mode == "full" and one.address not in net.network:
            raise ConfigError(f"{one.name}: its address {one.address} is not on the network {net.network}")
