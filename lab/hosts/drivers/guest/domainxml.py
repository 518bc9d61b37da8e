"""libvirt's description of a guest. Built as a tree, so that a value stays a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from xml.etree.ElementTree import Element, SubElement, tostring

from lab.errors import ConfigError
from lab.hosts.drivers.guest.xl import configuration
from lab.hosts.protocols import GuestConfig, GuestDisk

_MACHINES: Mapping[str, tuple[str, str]] = {
    "pv": ("xenpv", "linux"),
    "pvh": ("xenpvh", "xenpvh"),
    "hvm": ("xenfv", "hvm"),
}
"""Our kinds of guests to libvirt's machines and types."""
_IMAGE_FORMATS: Mapping[str, str] = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
_DEVICE_MODEL = "/usr/libexec/xen-qemu-system-i386"


def domain_xml(config: GuestConfig, *, script: str = "vif-lab") -> str:
    """The guest's domain XML, for the same guest as xl's configuration of it.

    `ConfigError` for whatever xl's configuration refuses, and for xl.cfg settings, which libvirt does not have.
    """
    if config.options:
        raise ConfigError(
            f"guest {config.name}: {', '.join(sorted(config.options))}: libvirt has no xl.cfg settings",
            hint="run the job with toolstack=xl",
        )
    if not config.kernel:
        raise ConfigError(f"guest {config.name}: under libvirt it needs a kernel", hint="run the job with toolstack=xl")
    configuration(replace(config, options=None), script=script)  # one rule for names, paths and texts
    machine, type_name = _MACHINES[config.kind]
    arguments = list(config.kernel_args)
    if not any(argument.startswith("console=") for argument in arguments):
        arguments.insert(0, "console=hvc0")

    domain = Element("domain", type="xen")
    _text(domain, "name", config.name)
    _text(domain, "memory", str(config.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(config.vcpus))
    system = SubElement(domain, "os")
    _text(system, "type", type_name, arch="x86_64", machine=machine)
    _text(system, "kernel", config.kernel)
    _text(system, "initrd", config.ramdisk)
    _text(system, "cmdline", " ".join(arguments))
    if config.kind == "hvm":
        features = SubElement(domain, "features")
        for name in ("acpi", "apic", "pae"):
            SubElement(features, name)
    # As under xl: gone when it powers off or reboots, kept as it died when it crashes.
    for event, action in (("poweroff", "destroy"), ("reboot", "destroy"), ("crash", "preserve")):
        _text(domain, f"on_{event}", action)
    devices = SubElement(domain, "devices")
    if config.kind == "hvm":
        _text(devices, "emulator", _DEVICE_MODEL)
    for disk in config.disks:
        _add_disk(devices, disk)
    if config.bridge is not None:
        _add_interface(devices, config, config.bridge, script)
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="xen", port="0")
    return tostring(domain, encoding="unicode")


def _add_disk(devices: Element, disk: GuestDisk) -> None:
    element = SubElement(devices, "disk", type="file", device="disk")
    SubElement(element, "driver", name="qemu", type=_IMAGE_FORMATS[disk.format])
    SubElement(element, "source", file=disk.path)
    SubElement(element, "target", dev=disk.vdev, bus="xen")
    if disk.read_only:
        SubElement(element, "readonly")


def _add_interface(devices: Element, config: GuestConfig, bridge: str, script: str) -> None:
    element = SubElement(devices, "interface", type="bridge")
    if config.mac is not None:
        SubElement(element, "mac", address=config.mac)
    SubElement(element, "source", bridge=bridge)
    SubElement(element, "script", path=script)
    if config.kind == "hvm":
        SubElement(element, "model", type="netfront")  # no emulated card beside the PV one


def _text(parent: Element, name: str, text: str, **attributes: str) -> None:
    SubElement(parent, name, attributes).text = text
