"""Flights on a machine that the lab reaches only as it would a real one: BMC, serial console, network boot."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import metal_machine
import pytest
from lab_cli import image_cache
from metal_room import BOOT_URL, LAB, Room, address, programs_missing, wait_for
from peers import ipmi, redfish, snmp
from peers.ser2net import console_server

pytestmark = [pytest.mark.system, pytest.mark.proof, pytest.mark.timeout(1800)]

PV = "test-amd64-amd64-xl-pv"


class SerialCable:
    """Two ends of a serial line, each a terminal: one for the machine, one for what serves its console."""

    def __init__(self) -> None:
        self._ours: list[int] = []
        self._theirs: list[int] = []
        self.ends: list[str] = []
        for _ in range(2):
            ours, theirs = pty.openpty()
            tty.setraw(theirs)
            self._ours.append(ours)
            self._theirs.append(theirs)
            self.ends.append(os.ttyname(theirs))
        for one, other in (self._ours, self._ours[::-1]):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: int, other: int) -> None:
        try:
            while data := os.read(one, 4096):
                while data:
                    data = data[os.write(other, data) :]
        except OSError:
            return

    def close(self) -> None:
        for number in (*self._theirs, *self._ours):
            os.close(number)


@dataclass
class Metal:
    """The room with its one machine, and the lab that is to use it."""

    room: Room
    home: Path
    lab_file: Path
    machine: metal_machine.Machine

    def lab(self, *words: str, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        """A command of the lab, in the room."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
        done = subprocess.run(
            self.room.command(sys.executable, "-m", "lab.cli", *words),
            env={**kept, "LAB_HOME": str(self.home), "LAB_FILE": str(self.lab_file), "COLUMNS": "200"},
            capture_output=True, text=True, timeout=timeout_s, cwd="/",
        )  # fmt: skip
        print(done.stderr)
        return done

    def tell(self) -> None:
        """What was seen, for the test's report."""
        console = self.home / "hosts" / "metal1" / "console.log"
        logs = [console, *self.room.folder.glob("*.out"), self.room.folder / "dnsmasq.log"]
        for log in logs:
            print(log, log.read_text(errors="replace")[-4000:] if log.exists() else "(none)")

    def flight(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.lab("flight", "run", "--jobs", PV, "--json", *words)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@dataclass
class Button:
    """The machine's button, as a program for those who press it."""

    program: Path


def a_button(folder: Path, machine: metal_machine.Machine) -> Button:
    program = folder / "button"
    program.write_text(
        f"""#!{sys.executable}
import sys
sys.path[:0] = {[str(Path(metal_machine.__file__).parent), *[one for one in sys.path if one]]!r}
import pathlib, metal_machine
machine = metal_machine.machine_at(pathlib.Path({str(machine.folder)!r}))
words = sys.argv[1:]
if words[-3:-1] == ["set", "power"]: machine.on() if words[-1] == "1" else machine.off()
elif words[-1:] == ["on"]: machine.on()
elif words[-1:] == ["off"]: machine.off()
if "get" in words: print(f"power:{{int(machine.pid() is not None)}}")
if words[-1:] == ["status"]: sys.exit(0 if machine.pid() is not None else 1)
"""
    )
    program.chmod(0o755)
    return Button(program)


IPMI = """
[[host.driver.power]]
method = "ipmi"
address = "127.0.0.1"
port = {port}
user = "lab"
password = "bmc"
cipher_suite = 3
privilege = "ADMINISTRATOR"
"""
REDFISH = """
[[host.driver.power]]
method = "redfish"
url = "{url}"
user = "lab"
password = "redfish"
"""
PDU = """
[[host.driver.power]]
method = "snmp"
address = "127.0.0.1"
port = {port}
outlet = 4
version = "3"
user = "lab"
auth_password = "auth"
privacy_password = "privacy"
"""
SOL = """
[host.driver.console]
method = "ipmi-sol"
address = "127.0.0.1"
port = {port}
user = "lab"
password = "bmc"
cipher_suite = 3
"""
TCP = """
[host.driver.console]
method = "tcp"
address = "127.0.0.1"
port = {port}
"""
HOST = """
[lab]
name = "metal"

[boot]
url = "{url}"

[[host]]
name = "metal1"
arch = "x86_64"
flags = ["hvm"]

[host.driver]
method = "metal"
address = "{address}/24"
gateway = "{gateway}"

[host.driver.boot]
method = "network"
mac = "{mac}"
asks_within_s = 60
"""


def reached(how: str, stack: ExitStack, folder: Path, room: Room, button: Button, line: str) -> str:
    """What switches the machine and serves its console, started in the room; its part of the lab's file."""
    here = room.command()
    if how == "ipmi":
        port = stack.enter_context(ipmi.ipmi_bmc(folder / "bmc", button, sol=line, prefix=here))
        return IPMI.format(port=port) + SOL.format(port=port)
    server = stack.enter_context(console_server(folder / "console", device=line, prefix=here))
    if how == "redfish":
        url = stack.enter_context(redfish.redfish_bmc(folder / "bmc", button, prefix=here))
        return REDFISH.format(url=url) + TCP.format(port=server.port)
    port, _ = stack.enter_context(snmp.snmp_pdu(folder / "pdu", {4: button}, prefix=here))
    return PDU.format(port=port) + TCP.format(port=server.port)


@contextmanager
def a_metal_lab(how: str, folder: Path, *, boot: str = "n") -> Iterator[Metal]:
    """A machine behind a BMC or a PDU, with a console server or serial over LAN, which boots from the network."""
    assert not (gone := programs_missing(["dnsmasq", "ipmi_sim", "ipmitool", "ser2net", "snmpd", "nsenter", "ip"])), (
        gone
    )
    with ExitStack() as stack:
        room = Room(folder / "room")
        stack.callback(room.close)
        room.open(1)
        cable = SerialCable()
        stack.callback(cable.close)
        machine = room.machine(1, serial=f"serial,id=serial0,path={cable.ends[0]}", boot=boot)
        button = a_button(folder, machine)
        parts = reached(how, stack, folder, room, button, cable.ends[1])
        home = folder / "lab"
        home.mkdir(mode=0o700)
        (home / "images").symlink_to(image_cache())
        secrets = home / "secrets.toml"
        known = {"bmc": ipmi.PASSWORD, "redfish": redfish.PASSWORD, "auth": snmp.AUTH, "privacy": snmp.PRIVACY}
        secrets.write_text("".join(f'{name} = "{value}"\n' for name, value in known.items()))
        secrets.chmod(0o600)
        lab_file = folder / "metal.toml"
        own = HOST.format(url=BOOT_URL.removesuffix("/boot"), address=address(1), gateway=LAB, mac=machine.mac)
        lab_file.write_text(own + parts)
        made = Metal(room, home, lab_file, machine)
        environment = {**os.environ, "LAB_HOME": str(home), "LAB_FILE": str(lab_file)}
        serve = ["boot-service", "--host", str(LAB), "--port", "8090"]
        room.start(sys.executable, "-m", "lab.cli", *serve, env=environment)
        stack.callback(_drop, home)
        yield made


def _drop(home: Path) -> None:
    """End what records the console."""
    from lab.hosts.drivers.console.keeper import drop_console
    from lab.hosts.drivers.machine.place import Place

    place = Place(home, "metal1")
    drop_console(place.folder, place.uuid)


@pytest.mark.parametrize("how", ["ipmi", "redfish", "pdu"])
def test_a_flight_passes_on_a_machine_that_is_reached_as_a_real_one(how: str, tmp_path: Path) -> None:
    with a_metal_lab(how, tmp_path) as metal:
        code, flight = metal.flight()
        (job,) = flight["jobs"]
        if code:
            metal.tell()
        assert (code, job["status"]) == (0, "pass"), job["reason"]
        assert metal.machine.pid() is None  # and it is off again
        wait_for(metal.home / "hosts" / "metal1" / "console.log", "LAB-HOST-READY", 1)


def test_a_machine_that_ignores_its_boot_order_is_broken_and_its_job_is_freed(tmp_path: Path) -> None:
    with a_metal_lab("ipmi", tmp_path, boot="c") as metal:
        code, flight = metal.flight()
        (job,) = flight["jobs"]
        assert (code, job["status"]) == (3, "broken")
        assert "did not ask for its boot script within 60 s" in job["reason"]
        assert metal.machine.pid() is None
