"""An emulated PC: multiboot loads Xen, dom0's kernel and its initramfs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.hosts.bootscript import ipxe_script
from lab.hosts.drivers.machine import accel
from lab.hosts.drivers.machine.architecture import (
    check_arguments,
    dom0_arguments,
    media_options,
    quoted,
    xen_arguments,
)
from lab.hosts.protocols import BootTarget
from lab.labfile import QemuSettings

# Each left out for a reason: SMAP/SMEP: QEMU reads the stack of an IRET with the wrong rights and kills a PV dom0.
# RDTSCP, UMIP: its SVM reports the wrong exit and Xen stops the guest. The vector extensions: slow, and xl's heap was
# seen corrupted with them.
_EMULATED_CPU = "max,-rdtscp,-umip,-smap,-smep,-la57,-pku,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-xsave,-mpx"


@dataclass(frozen=True)
class X86:
    """The `Architecture` of x86_64 hosts."""

    program: str = "qemu-system-x86_64"
    package: str = "qemu-system-x86"
    machine: str = "q35"

    def choose_accel(self, settings: QemuSettings, notes: Path) -> accel.Accel:
        """KVM where it works, unless the settings say otherwise."""
        return accel.choose(settings.accel, notes)

    def cpu(self, chosen: accel.Accel) -> list[str]:
        """Every feature of an emulated CPU that Xen does not stumble over."""
        if chosen == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", _EMULATED_CPU]

    def boot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """Xen as a multiboot kernel; the list of modules has dom0's kernel and arguments, then its initramfs."""
        check_arguments(target)
        modules = f"kernel {quoted(dom0_arguments(target))},initramfs"
        loaded = ["-kernel", "hypervisor", "-append", _xen(settings, target), "-initrd", modules]
        return [*loaded, *media_options(target), *_iommu(settings)]

    def boot_script(self, host: str, base: str, settings: QemuSettings, target: BootTarget) -> str:
        """The same, loaded by iPXE."""
        return ipxe_script(host, base, _xen(settings, target).split(), dom0_arguments(target).split())

    def netboot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """SeaBIOS and then iPXE's ROM of the network card, which speak on the serial console."""
        return ["-boot", "n", "-machine", "graphics=off", *media_options(target), *_iommu(settings)]


def _xen(settings: QemuSettings, target: BootTarget) -> str:
    memory = f"dom0_mem={settings.dom0_memory_mib}M,max:{settings.dom0_memory_mib}M"
    return xen_arguments(settings, target, "console=com1", "com1=115200,8n1", memory)


def _iommu(settings: QemuSettings) -> list[str]:
    return ["-device", "amd-iommu"] if settings.iommu else []
