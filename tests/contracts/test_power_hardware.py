"""What BMCs say of a machine's hardware: OpenIPMI's simulator with entries in its log, sushy-tools' emulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from peers import ipmi, redfish
from peers.machine import SwitchedMachine
from pydantic import TypeAdapter

from lab.errors import PowerError
from lab.hosts.drivers.power.hardware import read_hardware
from lab.hosts.drivers.power.ipmi import IpmiSwitch
from lab.hosts.hardware import Severity
from lab.machine_settings.power import IpmiPower, PowerSettings
from lab.secrets import Secrets

SETTINGS: TypeAdapter[PowerSettings] = TypeAdapter(PowerSettings)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    monkeypatch.setenv("LAB_SECRET_BMC", ipmi.PASSWORD)
    monkeypatch.setenv("LAB_SECRET_REDFISH", redfish.PASSWORD)
    return Secrets(tmp_path)


def test_the_log_of_a_bmc(tmp_path: Path, secrets: Secrets) -> None:
    machine = SwitchedMachine(tmp_path / "machine")
    with ipmi.ipmi_bmc(tmp_path / "bmc", machine) as port:
        given = {"method": "ipmi", "address": "127.0.0.1", "port": port, "user": ipmi.USER, "password": "bmc",
                 "cipher_suite": 3, "privilege": "ADMINISTRATOR"}  # fmt: skip
        settings = SETTINGS.validate_python(given)
        assert isinstance(settings, IpmiPower)
        assert read_hardware([settings], secrets, tmp_path) == ()
        events = tmp_path / "events"
        events.write_text(
            "0x04 0x0c 0x08 0x6f 0x01 0xff 0xff\n"  # memory: uncorrectable ECC
            "0x04 0x01 0x30 0x01 0x57 0x5a 0x58\n"  # temperature: upper non-critical going high
            "0x04 0x08 0x02 0x6f 0x00 0xff 0xff\n"  # power supply: present
        )
        IpmiSwitch(settings, secrets).run("sel", "add", str(events))
        found = read_hardware([settings], secrets, tmp_path)
        wrong = settings.model_copy(update={"password": "redfish"})
        with pytest.raises(PowerError, match="refuses user") as caught:
            read_hardware([wrong], secrets, tmp_path)
    assert [fault.severity for fault in found] == [Severity.CRITICAL, Severity.WARNING], found
    assert "Uncorrectable ECC" in found[0].line
    assert redfish.PASSWORD not in f"{caught.value} {caught.value.evidence}"
    assert not machine.on


def test_the_health_that_redfish_tells(tmp_path: Path, secrets: Secrets) -> None:
    from lab.hosts.drivers.power.redfish import RedfishSwitch

    with redfish.redfish_bmc(tmp_path / "bmc", SwitchedMachine(tmp_path / "machine")) as url:
        given = {"method": "redfish", "url": url, "user": redfish.USER, "password": "redfish"}
        settings = SETTINGS.validate_python(given)
        assert read_hardware([settings], secrets, tmp_path) == ()
        told = RedfishSwitch(settings, secrets).health()  # type: ignore[arg-type]
    assert dict(told)["system"] == "OK"
