"""What every power driver promises, held against an independent implementation of its protocol on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest
from peers import ipmi, pdudaemon, redfish, snmp
from peers.machine import SwitchedMachine
from pydantic import TypeAdapter, ValidationError
from servers import free_port

from lab.errors import ConfigError, InfraError, PowerError
from lab.hosts.drivers.power import open_power
from lab.hosts.drivers.power.chain import Link, PowerChain
from lab.hosts.fakes import FakePower
from lab.hosts.power import cycle, switch
from lab.hosts.protocols import Power
from lab.machine_settings.power import PowerSettings
from lab.secrets import Secrets

SETTINGS: TypeAdapter[PowerSettings] = TypeAdapter(PowerSettings)
QUICK = {"tries": 1, "settle_s": 1.0, "timeout_s": 8.0}


@dataclass
class Room:
    """A machine with its switch, and what it really is."""

    power: Power
    machine: SwitchedMachine | None
    settings: dict[str, Any]
    secrets: Secrets
    home: Path

    def opened(self, **more: Any) -> Power:
        return open_power([SETTINGS.validate_python({**self.settings, **more})], self.secrets, self.home)


def keep(home: Path, **secrets: str) -> Secrets:
    home.mkdir(parents=True, exist_ok=True)
    file = home / "secrets.toml"
    file.write_text("".join(f"{name} = {value!r}\n" if "'" not in value else f'{name} = "{value}"\n'
                            for name, value in secrets.items()))  # fmt: skip
    file.chmod(0o600)
    return Secrets(home)


@contextmanager
def a_room(kind: str, folder: Path, *, lie: bool = False) -> Iterator[Room]:
    home = folder / "home"
    machine = SwitchedMachine(folder / "machine", lie=lie)
    with ExitStack() as stack:
        secrets = keep(home, bmc=ipmi.PASSWORD, redfish=redfish.PASSWORD, pdu=snmp.COMMUNITY, auth=snmp.AUTH,
                       priv=snmp.PRIVACY)  # fmt: skip
        settings: dict[str, Any]
        match kind:
            case "ipmi":
                port = stack.enter_context(ipmi.ipmi_bmc(folder / "bmc", machine))
                settings = {"method": "ipmi", "address": "127.0.0.1", "port": port, "user": ipmi.USER,
                            "password": "bmc", "cipher_suite": 3, "privilege": "ADMINISTRATOR"}  # fmt: skip
            case "redfish":
                url = stack.enter_context(redfish.redfish_bmc(folder / "bmc", machine, lie=lie))
                settings = {"method": "redfish", "url": url, "user": redfish.USER, "password": "redfish"}
            case "snmp 1" | "snmp 2c" | "snmp 3":
                version = kind.split()[1]
                port, _ = stack.enter_context(snmp.snmp_pdu(folder / "pdu", {4: machine}, lie=lie))
                who = {"user": snmp.USER, "auth_password": "auth", "privacy_password": "priv"}
                settings = {"method": "snmp", "address": "127.0.0.1", "port": port, "outlet": 4, "version": version,
                            **(who if version == "3" else {"community": "pdu"})}  # fmt: skip
            case "pdudaemon":
                url = stack.enter_context(pdudaemon.pdudaemon(folder / "pdudaemon", machine))
                settings = {"method": "pdudaemon", "url": url, "pdu": pdudaemon.PDU, "port": pdudaemon.PORT}
            case "command":
                program = str(machine.program)
                settings = {"method": "command", "on": [program, "on"], "off": [program, "off"],
                            "status": [program, "status"]}  # fmt: skip
            case "manual":
                settings = {"method": "manual", "ask": [str(machine.program)], "wait_s": 5.0}
            case _:
                definition = folder / "node.xml"
                definition.write_text(
                    "<node><domain type='test'><name>bare1</name><memory>4096</memory><os><type>hvm</type></os>"
                    "</domain>"
                    "<cpu><mhz>1000</mhz><model>x</model><active>1</active><nodes>1</nodes><sockets>1</sockets>"
                    "<cores>1</cores><threads>1</threads></cpu><memory>8192</memory></node>"
                )
                # libvirt's own driver for tests: its state lives as long as one connection does
                connection = libvirt.open(f"test://{definition}")
                stack.callback(connection.close)
                settings, machine = {"method": "libvirt", "uri": f"test://{definition}", "domain": "bare1"}, None
        more = {} if kind == "manual" else QUICK
        power = open_power([SETTINGS.validate_python({**settings, **more})], secrets, home)
        yield Room(power=power, machine=machine, settings={**settings, **more}, secrets=secrets, home=home)


PDUDAEMON = pytest.param(
    "pdudaemon",
    marks=pytest.mark.skipif(
        not Path(sys.executable).with_name("pdudaemon").exists(),
        reason="pdudaemon is not installed: pip install pdudaemon (it needs libsystemd-dev, and is in no lock file)",
    ),
)
KINDS = ("ipmi", "redfish", "snmp 1", "snmp 2c", "snmp 3", PDUDAEMON, "command", "manual")
TELLS = ("ipmi", "redfish", "snmp 2c", "command")


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_is_what_it_was_set_to(kind: str, tmp_path: Path) -> None:
    with a_room(kind, tmp_path) as room:
        assert room.machine is not None
        room.power.set(False)
        for on in (True, True, False):  # what is so already is no error
            switch(room.power, on, wait=time.sleep)
            end = time.monotonic() + (
                10 if kind == "pdudaemon" else 0
            )  # it says that it has taken the command, no more
            while room.machine.on is not on and time.monotonic() < end:
                time.sleep(0.05)
            assert room.machine.on is on
            assert room.power.get() in (on, None)
        assert (room.power.get() is None) == (kind in ("pdudaemon", "manual"))
        if kind in TELLS:
            cycle(room.power, wait=time.sleep)
            assert room.machine.on


def test_a_libvirt_domain(tmp_path: Path) -> None:
    """libvirt's test driver forgets all with its last connection: each question sees the machine as defined, on."""
    with a_room("libvirt", tmp_path) as room:
        assert room.power.get() is True
        room.power.set(True)
        with pytest.raises(PowerError, match="bare2"):
            room.opened(domain="bare2").set(False)
        with pytest.raises(InfraError):
            room.opened(uri="test:///no/such/file.xml").get()


@pytest.mark.parametrize("kind", TELLS)
def test_a_switch_that_takes_the_command_and_does_nothing_is_found_out(kind: str, tmp_path: Path) -> None:
    with a_room(kind, tmp_path, lie=True) as room:
        with pytest.raises(PowerError, match="it took the command, but the machine is still off"):
            room.opened(settle_s=0.2).set(True)
        assert room.power.get() is False


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("ipmi", {"password": "pdu"}, "refuses user"),
        ("ipmi", {"user": "nobody"}, "does not answer, or refuses user|refuses user"),
        ("redfish", {"password": "pdu"}, "refuses user or password"),
        ("redfish", {"system": "/redfish/v1/Systems/none"}, "says 404"),
        ("snmp 2c", {"community": "bmc", "timeout_s": 1.0}, "does not answer, or does not know the community"),
        ("snmp 3", {"auth_password": "priv", "timeout_s": 2.0}, "refuses|does not answer"),
        ("snmp 2c", {"outlet": 77}, "outlet 77"),
        pytest.param("pdudaemon", {"pdu": "rack9"}, "says 500", marks=PDUDAEMON.marks),
        ("command", {"on": ["/bin/false"], "off": ["/bin/false"], "status": None}, "failed with 1"),
        ("command", {"on": ["/no/such/program"], "off": ["/x"], "status": None}, "cannot be run"),
        ("command", {"on": ["/bin/sleep", "9"], "off": ["/x"], "status": None, "timeout_s": 0.3}, "did not end within"),
    ],
)
def test_what_is_wrong_is_said_and_no_password_is(
    kind: str, wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with a_room(kind, tmp_path) as room:
        with pytest.raises(InfraError, match=message) as caught:
            room.opened(**wrong).set(True)
        told = f"{caught.value} {caught.value.evidence} {room.power!r} {room.settings} {room.secrets!r}"
        for secret in (ipmi.PASSWORD, redfish.PASSWORD + '"', snmp.COMMUNITY, snmp.AUTH, snmp.PRIVACY):
            assert secret not in told
        assert room.machine is not None
        assert not room.machine.on


@pytest.mark.parametrize("kind", ["ipmi", "redfish", "snmp 2c", PDUDAEMON])
def test_what_cannot_be_reached_is_said(kind: str, tmp_path: Path) -> None:
    with a_room(kind, tmp_path) as room:
        gone = free_port()
        where = {"url": f"http://127.0.0.1:{gone}"} if "url" in room.settings else {"port": gone}
        began = time.monotonic()
        with pytest.raises(InfraError, match="does not answer"):
            room.opened(timeout_s=1.5, **where).set(True)
        assert time.monotonic() - began < 20


def test_no_password_is_in_the_list_of_processes(tmp_path: Path) -> None:
    with a_room("ipmi", tmp_path) as room:

        def ask() -> None:
            with pytest.raises(InfraError):
                room.opened(port=free_port(), timeout_s=2.0).set(True)

        slow = threading.Thread(target=ask)
        slow.start()
        time.sleep(0.6)
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        slow.join()
    assert "ipmitool" in listed
    assert ipmi.PASSWORD not in listed


def test_a_bmc_that_is_gone_is_followed_by_the_outlet(tmp_path: Path) -> None:
    with a_room("snmp 2c", tmp_path) as room:
        bmc = {"method": "ipmi", "address": "127.0.0.1", "port": free_port(), "user": "lab", "password": "bmc",
               **QUICK, "timeout_s": 1.5}  # fmt: skip
        both = [SETTINGS.validate_python(one) for one in (bmc, room.settings)]
        power = open_power(both, room.secrets, room.home)
        power.set(True)
        assert room.machine is not None
        assert room.machine.on
        assert power.get() is True


def test_a_chain_tells_what_was_wrong_with_each_switch() -> None:
    waits: list[float] = []
    clock = iter(range(1000))
    links = [
        Link(name="bmc", power=FakePower(refuses=True), tries=3),
        Link(name="pdu", power=FakePower(stuck=True), tries=2, settle_s=2),
    ]
    chain = PowerChain(links, wait=waits.append, clock=lambda: float(next(clock)))
    with pytest.raises(PowerError, match=r"bmc: .*; pdu: it took the command, but the machine is still off"):
        chain.set(True)
    assert len(waits) >= 3
    blind = PowerChain([Link(name="pdu", power=FakePower(blind=True))], wait=waits.append)
    blind.set(True)
    assert blind.get() is None


_SWITCHER = """
import sys, json
from pathlib import Path
from pydantic import TypeAdapter
from lab.hosts.drivers.power import open_power
from lab.machine_settings.power import PowerSettings
from lab.secrets import Secrets
home, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for outlet in map(int, sys.argv[3:]):
    one = TypeAdapter(PowerSettings).validate_python({**settings, "outlet": outlet})
    open_power([one], Secrets(home), home).set(True)
"""


def test_fifty_commands_at_once_to_one_pdu_from_several_processes(tmp_path: Path) -> None:
    """Serialised, none lost: the PDU's own log shows that no request began before the one before it had ended."""
    machines = {number: SwitchedMachine(tmp_path / f"m{number}") for number in range(1, 51)}
    home = tmp_path / "home"
    keep(home, pdu=snmp.COMMUNITY)
    with snmp.snmp_pdu(tmp_path / "pdu", machines, slow=0.02) as (port, log):
        settings = {"method": "snmp", "address": "127.0.0.1", "port": port, "community": "pdu", **QUICK}
        commands = [
            [sys.executable, "-c", _SWITCHER, str(home), json.dumps(settings), *map(str, range(first, 51, 5))]
            for first in range(1, 6)
        ]
        running = [subprocess.Popen(command, env={**os.environ}) for command in commands]
        assert [one.wait(120) for one in running] == [0] * 5
        asked = [line.split()[1:3] for line in log.read_text().splitlines()]
    assert all(machine.on for machine in machines.values())
    assert sum(words == ["begin", "-s"] for words in asked) == 50
    assert [words[0] for words in asked] == ["begin", "end"] * (len(asked) // 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "ipmi", "address": "a b", "user": "u", "password": "p"},
        {"method": "ipmi", "address": "-H", "user": "u", "password": "p"},
        {"method": "ipmi", "address": "a", "user": "u u", "password": "p"},
        {"method": "ipmi", "address": "a", "user": "u", "password": "p", "port": 0},
        {"method": "redfish", "url": "http://user:pw@host", "user": "u", "password": "p"},
        {"method": "redfish", "url": "file:///etc/passwd", "user": "u", "password": "p"},
        {"method": "redfish", "url": "http://h", "system": "/redfish/v1/Systems/../x", "user": "u", "password": "p"},
        {"method": "snmp", "address": "a", "outlet": 1},
        {"method": "snmp", "address": "a", "outlet": 1, "version": "3", "user": "u"},
        {"method": "snmp", "address": "a", "outlet": 1, "community": "c", "oid": "1.2; rm"},
        {"method": "command", "on": [], "off": ["x"]},
        {"method": "command", "on": "reboot now", "off": ["x"]},
        {"method": "command", "on": ["a\nb"], "off": ["x"]},
        {"method": "libvirt", "uri": "qemu:///system\n", "domain": "d"},
        {"method": "libvirt", "uri": "esx://h", "domain": "d"},
        {"method": "magic"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SETTINGS.validate_python(wrong)


def test_secrets_are_read_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = keep(tmp_path, bmc="from file")
    assert secrets.get("bmc") == "from file"
    monkeypatch.setenv("LAB_SECRET_RACK_1", "from environment")
    assert secrets.get("rack-1") == "from environment"
    with pytest.raises(ConfigError, match="no secret"):
        secrets.get("other")
    file = tmp_path / "secrets.toml"
    file.write_text('bmc = "from file')  # no end: the parser would quote the line
    with pytest.raises(ConfigError) as caught:
        secrets.get("bmc")
    assert "from file" not in str(caught.value)
    assert caught.value.__cause__ is None
    file.write_text('bmc = "two\\nlines"\n')
    with pytest.raises(ConfigError, match="line end"):
        secrets.get("bmc")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        secrets.get("bmc")
    assert "from file" not in repr(secrets)
