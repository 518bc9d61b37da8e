"""What the BMCs of a machine say of its hardware: the log and sensors of IPMI, the health of Redfish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.hosts.drivers.power.ipmi import IpmiSwitch
from lab.hosts.drivers.power.queue import Queued
from lab.hosts.hardware import Fault, redfish_faults, sel_faults, sensor_faults
from lab.machine_settings.power import IpmiPower, PowerSettings, RedfishPower
from lab.secrets import Secrets


def read_hardware(settings: Sequence[PowerSettings], secrets: Secrets, home: Path) -> tuple[Fault, ...]:
    """The faults that the machine's BMCs tell of; none of a machine without one. Nothing is switched or cleared.

    Raises `InfraError` when a BMC refuses or does not answer.
    """
    faults: list[Fault] = []
    for one in settings:
        match one:
            case IpmiPower():
                bmc = IpmiSwitch(one, secrets)
                with Queued(bmc, home / "locks", f"{one.address}:{one.port}").alone():
                    faults += sel_faults(bmc.run("sel", "elist"))
                    faults += sensor_faults(bmc.run("sdr", "elist"))
            case RedfishPower():
                from lab.hosts.drivers.power.redfish import RedfishSwitch

                system = RedfishSwitch(one, secrets)
                with Queued(system, home / "locks", one.url).alone():
                    faults += redfish_faults(system.health())
            case _:
                pass
    return tuple(faults)
