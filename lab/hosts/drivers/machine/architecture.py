"""What differs between emulated machines by their architecture; each has a file of its own beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lab.errors import ConfigError
from lab.hosts.drivers.machine.accel import Accel
from lab.hosts.protocols import BOOT_ARGUMENT, BootTarget
from lab.labfile import QemuSettings

# These save time under emulation and change nothing of what is tested.
# Xen's log must hold its banner for as long as the host is used: one that comes from a checkpoint has no other.
XEN_ARGS = ("loglvl=all", "guest_loglvl=all", "conring_size=256k", "bootscrub=0")
DOM0_ARGS = ("console=hvc0", "cryptomgr.notests", "init_on_alloc=0", "audit=0", "ipv6.disable=1")


class Architecture(Protocol):
    """One kind of machine QEMU can be. File names in its options are names in the run folder."""

    @property
    def program(self) -> str:
        """The QEMU that plays it."""

    @property
    def package(self) -> str:
        """The Debian package that has this QEMU."""

    @property
    def machine(self) -> str:
        """The value of `-M`; further properties may be appended."""

    def choose_accel(self, settings: QemuSettings, notes: Path) -> Accel:
        """What these settings mean on the machine we run on; what was found out is noted in the folder `notes`."""

    def cpu(self, chosen: Accel) -> list[str]:
        """The options that choose the accelerator and the processor."""

    def boot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """The options that load Xen and dom0 without firmware's help; `ConfigError` when an argument is not allowed."""

    def boot_script(self, host: str, base: str, settings: QemuSettings, target: BootTarget) -> str:
        """The script that loads them over the network from `base`; `ConfigError` where this machine cannot do so."""

    def netboot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """The options with which its firmware boots over the network."""


def xen_arguments(settings: QemuSettings, target: BootTarget, *own: str) -> str:
    """Xen's command line: `own` is the architecture's; the target's come last: of two alike, the last counts."""
    smp = ("dom0_max_vcpus=1", "dom0_vcpus_pin") if settings.cpus > 1 else ()
    return " ".join([*own, *XEN_ARGS, *smp, *target.xen_args])


def dom0_arguments(target: BootTarget) -> str:
    """Dom0's whole command line."""
    return " ".join([*DOM0_ARGS, *target.dom0_args])


def media_options(target: BootTarget) -> list[str]:
    """The read-only disk for dom0, where there is one."""
    if target.media is None:
        return []
    return ["-drive", "if=none,id=media,file=media,format=raw,readonly=on", "-device", "virtio-blk-pci,drive=media"]


def check_arguments(target: BootTarget) -> None:
    """Raise `ConfigError` when a boot argument could be read as more than one."""
    for what, arguments in (("xen_args", target.xen_args), ("dom0_args", target.dom0_args)):
        for argument in arguments:
            if not BOOT_ARGUMENT.fullmatch(argument):
                raise ConfigError(
                    f"{what}: {argument[:60]!r} is not allowed as a boot argument",
                    hint="one argument each, of letters, digits and ._:/=@,+- only",
                )


def quoted(text: str) -> str:
    """`text` as the value of one of QEMU's properties: they end at a comma, and a doubled one stands for itself."""
    return text.replace(",", ",,")

