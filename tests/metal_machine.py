"""An emulated machine that knows nothing but its network card and its serial line, and its switch.

    metal_machine.py FOLDER on|off|status

FOLDER/machine.json says what it is (see `Machine`). `status` prints on or off. It is made for what switches real
machines to call: a BMC's simulator, a PDU's agent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.hosts.drivers.machine.x86 import X86


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine is: the tap of its card and the card's address, and where its serial line can be had (TCP).

    `boot` is the order of its firmware: n the network, c the disk. `serial` is a QEMU chardev.
    """

    folder: Path
    mac: str
    tap: str
    serial: str
    memory_mib: int = 2048
    boot: str = "n"
    card: str = "virtio-net-pci"

    def save(self) -> None:
        """Keep it where its switch finds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {**asdict(self), "folder": str(self.folder)}
        (self.folder / "machine.json").write_text(json.dumps(values))

    def command(self) -> list[str]:
        """QEMU's command line."""
        machine = X86()
        return [
            machine.program, "-name", self.folder.name, "-daemonize", "-no-reboot", "-no-user-config", "-nodefaults",
            "-display", "none", "-M", f"{machine.machine},graphics=off", "-m", str(self.memory_mib),
            *machine.cpu("tcg"), "-boot", self.boot, "-pidfile", str(self.pid_file),
            "-D", str(self.folder / "qemu.log"),
            "-chardev", self.serial, "-serial", "chardev:serial0",
            "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no",
            "-device", f"{self.card},netdev=n0,mac={self.mac},bootindex=0" if self.boot == "n"
            else f"{self.card},netdev=n0,mac={self.mac},romfile=",
        ]  # fmt: skip

    @property
    def pid_file(self) -> Path:
        return self.folder / "qemu.pid"

    def pid(self) -> int | None:
        """Its process; None when it is off."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self.pid_file).encode() in command else None

    def on(self) -> None:
        if self.pid() is None:
            done = subprocess.run(self.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)

    def off(self) -> None:
        while (pid := self.pid()) is not None:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def machine_at(folder: Path) -> Machine:
    """The machine that was saved there."""
    values = json.loads((folder / "machine.json").read_text())
    return Machine(**{**values, "folder": Path(values["folder"])})


if __name__ == "__main__":
    found = machine_at(Path(sys.argv[1]))
    match sys.argv[2]:
        case "on":
            found.on()
        case "off":
            found.off()
        case _:
            print("off" if found.pid() is None else "on")
