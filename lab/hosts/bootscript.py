"""The scripts with which a host boots over the network: an emulated one and a real one get the same. Pure.

A machine asks twice. Its firmware gets `start_script` from the TFTP server, which asks the lab; the lab answers with
`ipxe_script` when it has something for the machine to boot, and with `LOCAL_DISK` else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lab.errors import ConfigError
from lab.hosts.protocols import BOOT_ARGUMENT

_URL: Final = re.compile(r"http://[0-9A-Za-z.-]+(:[0-9]{1,5})?(/[0-9A-Za-z._-]+)*")
_HOST: Final = re.compile(r"[a-z0-9-]{1,32}")
_SECONDS: Final = range(1, 301)

FILES: Final = ("hypervisor", "kernel", "initramfs")
"""What the script loads, by the names it has below the base URL."""

SCRIPT: Final = "boot.ipxe"
"""The script's own name there."""


def ipxe_script(host: str, base: str, xen: Sequence[str], dom0: Sequence[str]) -> str:
    """Load Xen with its arguments, dom0's kernel with its own, and the initramfs from below the URL `base`.

    iPXE expands `${…}`, ends a command at `&&` and `||` and a line at a newline, so each argument is held against what
    an argument may be (`BOOT_ARGUMENT`: none of these); `ConfigError` otherwise.

    >>> print(ipxe_script("emu0", "http://10.0.2.100", ["loglvl=all"], ["console=hvc0"]))
    #!ipxe
    echo lab: emu0 boots Xen over the network
    kernel http://10.0.2.100/hypervisor loglvl=all || goto failed
    module http://10.0.2.100/kernel console=hvc0 || goto failed
    module http://10.0.2.100/initramfs || goto failed
    boot || goto failed
    :failed
    echo LAB-HOST-FAILED iPXE cannot load Xen
    poweroff
    <BLANKLINE>
    """
    _check(host, base, xen, dom0)
    hypervisor, kernel, initramfs = (f"{base}/{name}" for name in FILES)
    return "\n".join([
        "#!ipxe",
        f"echo lab: {host} boots Xen over the network",
        f"kernel {' '.join([hypervisor, *xen])} || goto failed",
        f"module {' '.join([kernel, *dom0])} || goto failed",
        f"module {initramfs} || goto failed",
        "boot || goto failed",
        ":failed",
        "echo LAB-HOST-FAILED iPXE cannot load Xen",
        "poweroff",
        "",
    ])  # fmt: skip


LOCAL_DISK: Final = """#!ipxe
echo lab: nothing to boot for this machine, going on with its own disk
iseq ${platform} efi && exit 1 ||
sanboot --no-describe --drive 0x80 || exit 1
"""
"""What a machine gets for which the lab has nothing: its firmware goes on with its boot order, or its first disk.

>>> LOCAL_DISK.splitlines()[0]
'#!ipxe'
"""


def start_script(base: str, *, within_s: int = 10) -> str:
    """What every machine runs first: ask the lab at the URL `base`; boot from its own disk when that is down.

    It is the same for all machines: each tells the MAC address of the card it boots by.
    """
    _check_url(base)
    if within_s not in _SECONDS:
        raise ConfigError(f"{within_s} is no time to wait for the lab", hint="1 to 300 seconds")
    return "\n".join([
        "#!ipxe",
        "isset ${ip} || dhcp || goto local",
        f"chain --timeout {within_s * 1000} --replace {base}/machine/${{netX/mac:hexhyp}}/{SCRIPT} || goto local",
        ":local",
        "echo lab: the lab does not answer, going on with this machine's own disk",
        *LOCAL_DISK.splitlines()[2:],
        "",
    ])  # fmt: skip


def _check(host: str, base: str, xen: Sequence[str], dom0: Sequence[str]) -> None:
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{host[:60]!r} is not a host's name")
    _check_url(base)
    for argument in (*xen, *dom0):
        if not BOOT_ARGUMENT.fullmatch(argument):
            raise ConfigError(
                f"{argument[:60]!r} is not allowed as a boot argument",
                hint="one argument each, of letters, digits and ._:/=@,+- only",
            )


def _check_url(base: str) -> None:
    if not _URL.fullmatch(base):
        raise ConfigError(f"{base[:60]!r} is not the address of a boot service", hint="http://ADDRESS[:PORT][/PATH]")
