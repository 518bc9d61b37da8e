"""A host that is a QEMU process: its power switch.

The process belongs to nobody: it is a daemon of its own session, found again by its pid file and its UUID, so it
outlives whoever powered it on and anybody may power it off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import Evidence, InfraError
from lab.hosts.drivers.machine import accel, lan, processes
from lab.hosts.drivers.machine.architecture import Architecture
from lab.hosts.drivers.machine.arm64 import Arm64
from lab.hosts.drivers.machine.place import BootRecord, Place
from lab.hosts.drivers.machine.qmp import Qmp
from lab.hosts.drivers.machine.x86 import X86
from lab.hosts.drivers.shell.identity import Identity, identity_of
from lab.hosts.protocols import BootTarget
from lab.image_formats import Entry, cpio_archive
from lab.labfile import QemuSettings

NETWORK = "192.168.77"
_RECORDER = Path(__file__).parents[1] / "console" / "recorder.py"
_PORT_TAKEN = "Could not set up host forwarding rule"

ARCHITECTURES: Final[Mapping[str, Architecture]] = {"x86_64": X86(), "arm64": Arm64()}
"""How a host's `arch` is emulated."""


@dataclass(frozen=True)
class QemuPower:
    """The `Power` of an embedded host. `index` is its number on the emulated network."""

    place: Place
    settings: QemuSettings
    index: int
    arch: Architecture = ARCHITECTURES["x86_64"]
    wait: Callable[[float], None] = time.sleep

    def get(self) -> bool:
        """Whether the process is alive."""
        return processes.find(self.place.pid_file, self.place.uuid) is not None

    def set(self, on: bool) -> None:
        """Start or end the machine; neither is an error when it is so already."""
        self.place.create()
        with self._alone():
            if not on:
                self._end()
            elif not self.get():
                self._end()  # a recorder of the last run may be lingering
                try:
                    self._start()
                except BaseException:
                    self._end()
                    raise

    def died(self) -> str:
        """What QEMU said last; for evidence when the machine is unexpectedly off."""
        try:
            return self.place.qemu_log.read_text(errors="replace")[-2000:]
        except FileNotFoundError:
            return ""

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        handle = os.open(self.place.folder / "power.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _end(self) -> None:
        place = self.place
        # A pid file may have been lost with a folder somebody removed; the process would run on unseen.
        pid = processes.find(place.pid_file, place.uuid) or processes.search(place.uuid, program="qemu")
        if pid is not None:
            with contextlib.suppress(InfraError), Qmp(place.socket("qmp"), timeout_s=2.0) as qmp:
                qmp.execute("quit")
            if not _gone(pid, place.uuid, 3.0, self.wait) and not processes.end(
                pid, place.uuid, signal.SIGKILL, within_s=10.0
            ):
                raise InfraError(f"{place.name}: QEMU (process {pid}) does not end, even when killed")
        place.pid_file.unlink(missing_ok=True)
        recorder = processes.find(place.recorder_pid_file, place.uuid) or processes.search(place.uuid, program="python")
        if recorder is not None and not processes.end(recorder, place.uuid, signal.SIGTERM, within_s=10.0):
            processes.end(recorder, place.uuid, signal.SIGKILL, within_s=5.0)

    def _start(self) -> None:
        place = self.place
        identity = identity_of(place.folder / "identity")
        target = place.target()
        processes.start_helper(
            _RECORDER, str(place.folder), f"{place.switch_folder}/{place.name}", place.uuid,
            log=place.folder / "recorder.log",
        )  # fmt: skip
        lan.attach(place.switch_folder, self.settings.lan, place.name)
        mark = secrets.token_hex(8)
        if target is not None:
            self._stage(target, identity, mark)
        chosen = self.arch.choose_accel(self.settings, place.switch_folder)
        offset = place.console_log.stat().st_size
        port = self._launch(target, chosen)
        place.save_boot(BootRecord(mark=mark, ssh_port=port, console_offset=offset, accel=chosen))
        self._let_go()

    def _stage(self, target: BootTarget, identity: Identity, mark: str) -> None:
        """Put what QEMU loads into the run folder, under names that need no quoting."""
        folder = self.place.folder
        links = {"hypervisor": target.hypervisor, "kernel": target.kernel, "media": target.media}
        for name, path in links.items():
            (folder / name).unlink(missing_ok=True)
            if path is not None:
                (folder / name).symlink_to(path.resolve())
        try:
            with target.initramfs.open("rb") as base, (folder / "initramfs").open("wb") as staged:
                shutil.copyfileobj(base, staged, 1 << 20)
                for path in target.overlays:
                    staged.write(b"\0" * (-staged.tell() % 4))  # the kernel wants each archive on a multiple of 4
                    staged.write(path.read_bytes())
                staged.write(b"\0" * (-staged.tell() % 4))
                staged.write(_own_files(self.place, self.index, mark, identity))
        except OSError as error:
            raise InfraError(f"{self.place.name}: cannot prepare its initramfs: {error}") from error

    def _launch(self, target: BootTarget | None, chosen: accel.Accel) -> int:
        """Start QEMU with its processor stopped; returns the local port of dom0's ssh."""
        place = self.place
        for kind in ("qmp", "vm"):
            Path(place.socket(kind)).unlink(missing_ok=True)
        for attempt in range(10):
            port = _free_port()
            command = command_line(place, self.settings, self.index, target, chosen, port, self.arch)
            status, said = self._run(command)
            if status == 0:
                return port
            # Somebody may take the port between our look and QEMU's: then it is another's turn.
            if _PORT_TAKEN not in said or attempt == 9:
                raise InfraError(
                    f"{place.name}: QEMU did not start: {said.splitlines()[-1] if said else 'it says nothing'}",
                    hint=f"see {place.qemu_log}",
                    evidence=Evidence(host=place.name, command=" ".join(command), exit_status=status, output=said),
                )
        raise AssertionError

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Exit status and complaints of a QEMU that goes to the background once it is set up."""
        log_file = self.place.qemu_log
        with log_file.open("ab") as log:
            start = log.tell()
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.place.folder, check=False,
                    timeout=60,
                )  # fmt: skip
            except FileNotFoundError as error:
                raise InfraError(f"{command[0]} is not installed", hint=f"apt install {self.arch.package}") from error
            except subprocess.TimeoutExpired as error:
                raise InfraError(f"{self.place.name}: QEMU did not come up within 60 s") from error
        return done.returncode, log_file.read_bytes()[start:].decode(errors="replace").strip()

    def _let_go(self) -> None:
        """Let the machine run once its console is being recorded, so that not a byte is missed."""
        try:
            with Qmp(self.place.socket("qmp")) as qmp:
                for _ in range(100):
                    lines = {line["label"]: line["filename"] for line in qmp.execute("query-chardev")}
                    if not lines["serial0"].startswith("disconnected"):
                        qmp.execute("cont")
                        return
                    self.wait(0.05)
        except InfraError as error:
            raise InfraError(
                f"{self.place.name}: QEMU ended as it started: {error.message}",
                evidence=Evidence(host=self.place.name, output=self.died()),
            ) from error
        raise InfraError(f"{self.place.name}: QEMU does not reach the console recorder")


def command_line(
    place: Place,
    settings: QemuSettings,
    index: int,
    target: BootTarget | None,
    chosen: accel.Accel,
    ssh_port: int,
    arch: Architecture,
) -> list[str]:
    """QEMU's whole command line. Relative paths are names in the run folder, see `_stage`."""
    vm = place.socket("vm")
    reconnect = "reconnect-ms=1000" if accel.qemu_version(arch.program) >= (9, 2) else "reconnect=1"
    command = [
        arch.program, "-name", place.name, "-uuid", place.uuid, "-daemonize", "-S", "-no-reboot", "-no-user-config",
        "-pidfile", str(place.pid_file), "-D", str(place.qemu_log), "-display", "none", "-nodefaults",
        "-M", arch.machine, "-smp", str(settings.cpus), "-m", str(settings.memory_mib),
        "-qmp", f"unix:{place.socket('qmp')},server=on,wait=off",
        "-chardev", f"socket,id=serial0,path={place.socket('serial')},{reconnect}", "-serial", "chardev:serial0",
        # Restricted: dom0 is reached from here, and reaches nothing but the lab's own network.
        "-netdev", f"user,id=n0,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device", f"virtio-net-pci,netdev=n0,mac={_mac(0, index)},romfile=",
        "-netdev", f"dgram,id=n1,local.type=unix,local.path={vm},remote.type=unix,remote.path={place.socket('sw')}",
        "-device", f"virtio-net-pci,netdev=n1,mac={_mac(1, index)},romfile=",
    ]  # fmt: skip
    command += arch.cpu(chosen)
    if target is not None:
        command += arch.boot_options(settings, target)
    return command


def _own_files(place: Place, index: int, mark: str, identity: Identity) -> bytes:
    settings: Mapping[str, str] = {
        "LAB_NAME": place.name, "LAB_IP": f"{NETWORK}.{index}/24", "LAB_MARK": mark, "LAB_UUID": place.uuid,
    }  # fmt: skip
    conf = "".join(f"{key}={value}\n" for key, value in settings.items())
    entries: Sequence[Entry] = (
        Entry.file("etc/lab/host.conf", conf.encode()),
        Entry.folder("root", 0o700),
        Entry.folder("root/.ssh", 0o700),
        Entry.file("root/.ssh/authorized_keys", f"{identity.client_public}\n".encode(), 0o600),
        Entry.file("etc/dropbear/dropbear_ed25519_host_key", identity.host_key_dropbear, 0o600),
    )
    return cpio_archive(entries)


def _mac(net: int, index: int) -> str:
    return f"52:54:00:f1:{net:02x}:{index:02x}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _gone(pid: int, sign: str, within_s: float, wait: Callable[[float], None]) -> bool:
    until = time.monotonic() + within_s
    while processes.bears(pid, sign):
        if time.monotonic() >= until:
            return False
        wait(0.02)
    return True
