"""The iPXE script with which a host boots Xen over the network: an emulated one and a real one get the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lab.errors import ConfigError
from lab.hosts.protocols import BOOT_ARGUMENT

_URL: Final = re.compile(r"http://[0-9A-Za-z.-]+(:[0-9]{1,5})?(/[0-9A-Za-z._-]+)*")
_HOST: Final = re.compile(r"[a-z0-9-]{1,32}")

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
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{host[:60]!r} is not a host's name")
    if not _URL.fullmatch(base):
        raise ConfigError(f"{base[:60]!r} is not the address of a boot service", hint="http://ADDRESS[:PORT][/PATH]")
    for argument in (*xen, *dom0):
        if not BOOT_ARGUMENT.fullmatch(argument):
            raise ConfigError(
                f"{argument[:60]!r} is not allowed as a boot argument",
                hint="one argument each, of letters, digits and ._:/=@,+- only",
            )
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
