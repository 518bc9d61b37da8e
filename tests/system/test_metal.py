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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import metal_machine
import pytest
from lab_cli import image_cache
from metal_room import BOOT_URL, LAB, Room, address, programs_missing, wait_for
from peers import ipmi

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


@pytest.fixture
def metal(tmp_path: Path) -> Iterator[Metal]:
    """A machine behind a BMC: its power is IPMI, its console serial over LAN, and it boots from the network."""
    assert not (gone := programs_missing(["dnsmasq", "ipmi_sim", "ipmitool", "nsenter", "ip"])), gone
    with ExitStack() as stack:
        room = Room(tmp_path / "room")
        stack.callback(room.close)
        room.open(1)
        cable = SerialCable()
        stack.callback(cable.close)
        machine = room.machine(1, serial=f"serial,id=serial0,path={cable.ends[0]}")
        button = a_button(tmp_path, machine)
        port = stack.enter_context(ipmi.ipmi_bmc(tmp_path / "bmc", button, sol=cable.ends[1], prefix=room.command()))
        home = tmp_path / "lab"
        home.mkdir(mode=0o700)
        (home / "images").symlink_to(image_cache())
        secrets = home / "secrets.toml"
        secrets.write_text(f'bmc = "{ipmi.PASSWORD}"\n')
        secrets.chmod(0o600)
        lab_file = tmp_path / "metal.toml"
        lab_file.write_text(
            f"""
[lab]
name = "metal"

[boot]
url = "{BOOT_URL.removesuffix("/boot")}"

[[host]]
name = "metal1"
arch = "x86_64"
flags = ["hvm"]

[host.driver]
method = "metal"
address = "{address(1)}/24"
gateway = "{LAB}"

[[host.driver.power]]
method = "ipmi"
address = "127.0.0.1"
port = {port}
user = "{ipmi.USER}"
password = "bmc"
cipher_suite = 3
privilege = "ADMINISTRATOR"

[host.driver.console]
method = "ipmi-sol"
address = "127.0.0.1"
port = {port}
user = "{ipmi.USER}"
password = "bmc"
cipher_suite = 3

[host.driver.boot]
method = "network"
mac = "{machine.mac}"
"""
        )
        made = Metal(room, home, lab_file, machine)
        environment = {**os.environ, "LAB_HOME": str(home), "LAB_FILE": str(lab_file)}
        room.start(
            sys.executable, "-m", "lab.cli", "boot-service", "--host", str(LAB), "--port", "8090", env=environment
        )
        stack.callback(_drop, home)
        yield made


def _drop(home: Path) -> None:
    """End what records the console."""
    from lab.hosts.drivers.console.keeper import drop_console
    from lab.hosts.drivers.machine.place import Place

    place = Place(home, "metal1")
    drop_console(place.folder, place.uuid)


def test_a_flight_passes_on_a_machine_behind_a_bmc(metal: Metal) -> None:
    code, flight = metal.flight()
    print(json.dumps(flight, indent=1)[:6000])
    if code:
        console = metal.home / "hosts" / "metal1" / "console.log"
        print(console.read_bytes()[-6000:].decode(errors="replace") if console.exists() else "(no console)")
        for log in [*metal.room.folder.glob("*.out"), metal.room.folder / "dnsmasq.log"]:
            print(log, log.read_text(errors="replace")[-3000:] if log.exists() else "")
    assert code == 0
    (job,) = flight["jobs"]
    assert job["status"] == "pass"
    assert metal.machine.pid() is None  # and it is off again
    wait_for(metal.home / "hosts" / "metal1" / "console.log", "LAB-HOST-READY", 1)
