"""A machine room on this computer: a network of its own, DHCP and TFTP by dnsmasq, and machines that boot by it.

Everything is in a network namespace, so nothing of it is seen outside; whoever is not root gets one by a user
namespace. What runs in the room is started by `Room.command`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from metal_machine import Machine

from lab.hosts.bootscript import start_script
from lab.hosts.dhcp import START_SCRIPT, BootNetwork, Reservation, dnsmasq_config

BRIDGE = "lab0"
LAB = IPv4Address("192.168.78.1")
NETWORK = IPv4Network("192.168.78.0/24")
BOOT_URL = f"http://{LAB}:8090/boot"
MAC = "52:54:00:f2:00:{:02x}"


@dataclass
class Room:
    """The room in a folder; close it, whatever happened."""

    folder: Path
    machines: list[Machine] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _holder: subprocess.Popen[bytes] | None = None

    def open(self, machines: int = 1) -> None:
        """Lay the network and start dnsmasq, for so many machines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rootless = ["--user", "--map-root-user"] if os.geteuid() else []
        self._holder = subprocess.Popen(
            ["unshare", *rootless, "--net", "sh", "-c", "echo; exec sleep 86400"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        taps = [f"tap{number}" for number in range(1, machines + 1)]
        lines = ["ip link set lo up", f"ip link add {BRIDGE} type bridge", f"ip addr add {LAB}/24 dev {BRIDGE}"]
        for tap in taps:
            lines += [f"ip tuntap add {tap} mode tap", f"ip link set {tap} master {BRIDGE} up"]
        self.run("sh", "-ec", "\n".join([*lines, f"ip link set {BRIDGE} up"]))
        tftp = self.folder / "tftp"
        tftp.mkdir()
        (tftp / START_SCRIPT).write_text(start_script(BOOT_URL))
        net = BootNetwork(interface=BRIDGE, server=LAB, network=NETWORK, tftp_root=str(tftp))
        known = [
            Reservation(name=f"metal{number}", mac=MAC.format(number), address=address(number))
            for number in range(1, machines + 1)
        ]
        config = self.folder / "dnsmasq.conf"
        config.write_text(dnsmasq_config(net, known))
        leases, log = self.folder / "leases", self.folder / "dnsmasq.log"
        self.start(
            "dnsmasq", "--keep-in-foreground", f"--conf-file={config}", f"--dhcp-leasefile={leases}", "--user=root",
            "--group=root", f"--log-facility={log}", "--log-dhcp", "--pid-file=",
        )  # fmt: skip

    def machine(self, number: int, *, serial: str, boot: str = "n") -> Machine:
        """One of the machines of the room, off."""
        found = Machine(
            folder=self.folder / f"metal{number}", mac=MAC.format(number), tap=f"tap{number}", serial=serial, boot=boot
        )
        found.save()
        self.machines.append(found)
        return found

    def command(self, *argv: str) -> list[str]:
        """The command, as one that runs in the room."""
        assert self._holder is not None
        rootless = ["--user", "--preserve-credentials"] if os.geteuid() else []
        return ["nsenter", "--target", str(self._holder.pid), *rootless, "--net", *argv]

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        """Run a command in the room; its output."""
        done = subprocess.run(
            self.command(*argv), capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process in the room; it ends with it."""
        with (self.folder / f"{Path(argv[0]).name}.out").open("ab") as log:
            process = subprocess.Popen(
                self.command(*argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd="/"
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End everything in it."""
        for machine in self.machines:
            machine.off()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            assert self._holder.stdout is not None
            self._holder.stdout.close()


def address(number: int) -> IPv4Address:
    """The address of a machine of the room."""
    return LAB + 10 + number


def wait_for(path: Path, text: str, within_s: float) -> None:
    """Wait until a file holds a text."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if path.exists() and text in path.read_text(errors="replace"):
            return
        time.sleep(0.2)
    raise AssertionError(f"{path} has no {text!r} after {within_s} s")


def programs_missing(names: Sequence[str]) -> list[str]:
    """Which of the programs are not installed."""
    import shutil

    return [name for name in names if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
