"""An emulated arm64 board: QEMU loads Xen as a Linux Image and lays dom0 into memory as modules of its device tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.errors import ConfigError
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

# The board's memory begins at 1 GiB. QEMU puts Xen at its start and the device tree 128 MiB above that; the modules
# come behind, with room for a kernel of 112 MiB.
_KERNEL_AT = 0x4900_0000
_INITRAMFS_AT = 0x5000_0000


@dataclass(frozen=True)
class Arm64:
    """The `Architecture` of arm64 hosts: always emulated, for KVM does not hand the virtualization level on."""

    program: str = "qemu-system-aarch64"
    package: str = "qemu-system-arm"
    machine: str = "virt,virtualization=on,gic-version=2"

    def choose_accel(self, settings: QemuSettings, notes: Path) -> accel.Accel:
        """Emulation, whatever this machine can do."""
        del settings, notes
        return "tcg"

    def cpu(self, chosen: accel.Accel) -> list[str]:
        """A processor that Xen knows well, and runs armhf guests, too."""
        return ["-accel", f"{chosen},thread=multi,tb-size=512", "-cpu", "cortex-a57"]

    def boot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """Xen as the kernel; dom0's kernel and initramfs where the device tree says they are."""
        check_arguments(target)
        memory = f"dom0_mem={settings.dom0_memory_mib}M"
        xen = xen_arguments(settings, target, "console=dtuart", memory)
        arguments = quoted(dom0_arguments(target))
        return [
            "-kernel", "hypervisor", "-append", xen,
            "-device", f"guest-loader,addr={_KERNEL_AT:#x},kernel=kernel,bootargs={arguments}",
            "-device", f"guest-loader,addr={_INITRAMFS_AT:#x},initrd=initramfs",
            *media_options(target),
        ]  # fmt: skip

    def boot_script(self, host: str, base: str, settings: QemuSettings, target: BootTarget) -> str:
        """Not yet."""
        del base, settings, target
        raise ConfigError(f"host {host}: emulated arm64 hosts do not boot over the network", hint="host_start=cold")

    def netboot_options(self, settings: QemuSettings, target: BootTarget) -> list[str]:
        """Not yet; `boot_script` has refused."""
        del settings
        return media_options(target)
