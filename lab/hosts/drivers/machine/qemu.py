"""A host that is a QEMU process: its power switch.

The process belongs to nobody: it is a daemon of its own session, found again by its pid file and its UUID, so it
outlives whoever powered it on and anybody may power it off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lab.errors import Evidence, InfraError, PowerError
from lab.hosts.bootscript import SCRIPT
from lab.hosts.drivers.boot.initramfs import own_files, stage_initramfs
from lab.hosts.drivers.machine import accel, identity_channel, lan, processes, snapshot
from lab.hosts.drivers.machine.architecture import Architecture, quoted
from lab.hosts.drivers.machine.arm64 import Arm64
from lab.hosts.drivers.machine.checkpoint import Facts, Memory, content_key, memory_options
from lab.hosts.drivers.machine.checkpoint_store import CheckpointStore
from lab.hosts.drivers.machine.place import BootRecord, Place
from lab.hosts.drivers.machine.qmp import Qmp
from lab.hosts.drivers.machine.x86 import X86
from lab.hosts.drivers.shell.identity import Identity, identity_of
from lab.hosts.protocols import BootTarget, StartRequest
from lab.labfile import QemuSettings

NETWORK = "192.168.77"
_RECORDER = Path(__file__).parents[1] / "console" / "recorder.py"
_BOOT_SERVICE = Path(__file__).parents[1] / "boot" / "http_service.py"
_BOOT_ADDRESS = "10.0.2.100"
_IDENTITY_LIMIT_S = 45.0
_PORT_TAKEN = "Could not set up host forwarding rule"

ARCHITECTURES: Final[Mapping[str, Architecture]] = {"x86_64": X86(), "arm64": Arm64()}
"""How a host's `arch` is emulated."""


@dataclass(frozen=True)
class QemuPower:
    """The `Power` of an embedded host. `index` is its number on the emulated network.

    A host comes up from a checkpoint where there is one of what it is to boot (see `checkpoint`); else it boots, and
    `keep` makes one of it. `checkpoints` None: it always boots.
    """

    place: Place
    settings: QemuSettings
    index: int
    arch: Architecture = ARCHITECTURES["x86_64"]
    checkpoints: CheckpointStore | None = None
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
                raise PowerError(f"{place.name}: QEMU (process {pid}) does not end, even when killed")
        place.pid_file.unlink(missing_ok=True)
        recorder = processes.find(place.recorder_pid_file, place.uuid) or processes.search(place.uuid, program="python")
        if recorder is not None and not processes.end(recorder, place.uuid, signal.SIGTERM, within_s=10.0):
            processes.end(recorder, place.uuid, signal.SIGKILL, within_s=5.0)

    def _start(self) -> None:
        target = self.place.target()
        chosen = self.arch.choose_accel(self.settings, self.place.switch_folder)
        key = self._checkpoint_key(target, chosen)
        note = ""
        if target is not None and key and self.checkpoints is not None and self.checkpoints.has(key):
            try:
                self._restore(self.checkpoints, target, chosen, key)
                return
            except InfraError as error:
                self._end()
                self.checkpoints.discard(key)
                note = f"checkpoint {key[:8]} did not come up and was thrown away ({error.message}); "
        self._boot(target, chosen, key, note)

    def _boot(self, target: BootTarget | None, chosen: accel.Accel, key: str, note: str) -> None:
        mark = self._prepare(target)
        lan.attach(self.place.switch_folder, self.settings.lan, self.place.name)
        offset = self.place.console_log.stat().st_size
        port = self._launch(target, chosen, "shared" if key else "own")
        netboot = target is not None and target.start is StartRequest.NETBOOT
        self.place.save_boot(
            BootRecord(
                mark=mark, ssh_port=port, console_offset=offset, accel=chosen, checkpoint=key,
                start="netboot" if netboot else "cold",
                note=f"{note}booted {'over the network, by iPXE' if netboot else 'from cold'}",
            )
        )  # fmt: skip
        self._let_go()

    def _restore(self, store: CheckpointStore, target: BootTarget, chosen: accel.Accel, key: str) -> None:
        """Start from a checkpoint and make the machine this host; `InfraError` whatever goes wrong."""
        place = self.place
        store.check(key)
        mark = self._prepare(target)
        place.checkpoint.unlink(missing_ok=True)
        place.checkpoint.symlink_to(store.path(key))
        # Until it knows who it is, it is the host that was saved: nobody may hear it.
        Path(place.socket("sw")).unlink(missing_ok=True)
        offset = place.console_log.stat().st_size
        port = self._launch(target, chosen, "restored")
        place.save_boot(
            BootRecord(
                mark=mark, ssh_port=port, console_offset=offset, accel=chosen, start="checkpoint", checkpoint=key,
                note=f"started from checkpoint {key[:8]}",
            )
        )  # fmt: skip
        with Qmp(place.socket("qmp")) as qmp:
            snapshot.load(qmp, store.path(key) / "state", wait=self.wait)
        self._let_go()
        identity = identity_of(place.folder / "identity")
        values: dict[str, str | bytes] = {
            "LAB_TIME": f"{time.time():.6f}",
            "LAB_SEED": secrets.token_hex(64),
            **_settings(place, self.index, mark),
            "LAB_MAC": _mac(1, self.index),
            "LAB_AUTHORIZED_KEYS": f"{identity.client_public}\n".encode(),
            "LAB_HOST_KEY": identity.host_key_dropbear,
        }
        identity_channel.tell(
            place.socket("identity"), identity_channel.message(values), alive=self.get, within_s=_IDENTITY_LIMIT_S
        )
        lan.attach(place.switch_folder, self.settings.lan, place.name)

    def _checkpoint_key(self, target: BootTarget | None, chosen: accel.Accel) -> str:
        """The key of the checkpoint this host may come from or become; empty when it may not."""
        # Under KVM a boot takes a few seconds, and what a saved nested guest does there was never tried.
        store = self.checkpoints
        if target is None or target.start is not StartRequest.AUTO or chosen != "tcg":
            return ""
        if store is None or store.limit_mib == 0:
            return ""
        files = {
            "hypervisor": target.hypervisor, "kernel": target.kernel, "initramfs": target.initramfs,
            "media": target.media, **{f"overlay {n}": path for n, path in enumerate(target.overlays)},
        }  # fmt: skip
        try:
            digests = {name: store.digest(path) for name, path in files.items() if path is not None}
        except OSError:
            return ""  # whoever stages the files says what is wrong with them
        nobodys = Place(Path("/"), "host")
        command = command_line(nobodys, self.settings, 0, target, chosen, 0, self.arch)
        return content_key(command, digests, accel.qemu_build(self.arch.program))

    def keep(self) -> None:
        """Make a checkpoint of this machine, where it is wanted; to be called once it is ready and not used yet.

        A checkpoint that cannot be made is only noted in the boot record: the machine itself goes on.
        """
        record, store = self.place.boot(), self.checkpoints
        if record is None or record.start != "cold" or not record.checkpoint or store is None:
            return
        key = record.checkpoint
        with self._alone():
            try:
                note = "saved as checkpoint" if self._save(store, key) else "there is a checkpoint meanwhile:"
                note = f"{note} {key[:8]}"
            except (InfraError, OSError) as error:
                store.discard(key)
                note = f"no checkpoint of it: {error}"
            self.place.save_boot(replace(record, checkpoint="", note=f"{record.note}; {note}"))

    def discard(self, key: str) -> None:
        """Throw away a checkpoint from which the machine did not become ready."""
        if self.checkpoints is not None:
            self.checkpoints.discard(key)

    def _save(self, store: CheckpointStore, key: str) -> bool:
        place = self.place
        pid = processes.find(place.pid_file, place.uuid)
        target = place.target()
        if pid is None or target is None:
            raise InfraError("the machine is off")
        with Qmp(place.socket("qmp")) as qmp:
            lines = {line["label"]: line for line in qmp.execute("query-chardev")}
            if not lines["identity"]["frontend-open"]:
                raise InfraError("its dom0 does not listen for another identity")

            def write(folder: Path) -> Facts:
                memory, size, digest = snapshot.save(qmp, pid, folder, wait=self.wait)
                return Facts(
                    target=target.key, memory_bytes=memory, state_bytes=size, state_sha256=digest, saved_at=time.time()
                )

            added = store.add(key, write)
        if added:  # the clock stood still meanwhile
            now = identity_channel.message({"LAB_TIME": f"{time.time():.6f}"})
            identity_channel.tell(place.socket("identity"), now, alive=self.get, within_s=_IDENTITY_LIMIT_S)
        return added

    def _prepare(self, target: BootTarget | None) -> str:
        """Everything the machine needs at its start; returns what it is to say when it is ready."""
        place = self.place
        identity = identity_of(place.folder / "identity")
        processes.start_helper(
            _RECORDER, str(place.folder), f"{place.switch_folder}/{place.name}", place.uuid,
            log=place.folder / "recorder.log",
        )  # fmt: skip
        mark = secrets.token_hex(8)
        if target is not None:
            self._stage(target, identity, mark)
        identity_channel.make_pipes(place.socket("identity"))
        return mark

    def _stage(self, target: BootTarget, identity: Identity, mark: str) -> None:
        """Put what QEMU loads into the run folder, under names that need no quoting."""
        folder = self.place.folder
        links = {"hypervisor": target.hypervisor, "kernel": target.kernel, "media": target.media}
        for name, path in links.items():
            (folder / name).unlink(missing_ok=True)
            if path is not None:
                (folder / name).symlink_to(path.resolve())
        own = _own_files(self.place, self.index, mark, identity)
        stage_initramfs(self.place.name, target, own, folder / "initramfs")
        try:
            if target.start is StartRequest.NETBOOT:
                script = self.arch.boot_script(self.place.name, f"http://{_BOOT_ADDRESS}", self.settings, target)
                (folder / SCRIPT).write_text(script)
        except OSError as error:
            raise InfraError(f"{self.place.name}: cannot prepare its boot script: {error}") from error

    def _launch(self, target: BootTarget | None, chosen: accel.Accel, memory: Memory = "own") -> int:
        """Start QEMU with its processor stopped; returns the local port of dom0's ssh."""
        place = self.place
        for kind in ("qmp", "vm"):
            Path(place.socket(kind)).unlink(missing_ok=True)
        for attempt in range(10):
            port = _free_port()
            command = command_line(place, self.settings, self.index, target, chosen, port, self.arch, memory)
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
    memory: Memory = "own",
) -> list[str]:
    """QEMU's whole command line. Relative paths are names in the run folder, see `_stage`."""
    netboot = target is not None and target.start is StartRequest.NETBOOT
    vm = place.socket("vm")
    reconnect = "reconnect-ms=1000" if accel.qemu_version(arch.program) >= (9, 2) else "reconnect=1"
    command = [
        arch.program, "-name", place.name, "-uuid", place.uuid, "-daemonize", "-S", "-no-reboot", "-no-user-config",
        "-pidfile", str(place.pid_file), "-D", str(place.qemu_log), "-display", "none", "-nodefaults",
        *memory_options(arch.machine, settings.memory_mib, memory), "-smp", str(settings.cpus),
        "-qmp", f"unix:{place.socket('qmp')},server=on,wait=off",
        "-chardev", f"socket,id=serial0,path={place.socket('serial')},{reconnect}", "-serial", "chardev:serial0",
        # Restricted: dom0 is reached from here, and reaches nothing but the lab's own network.
        "-netdev", f"user,id=n0,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"
        + _boot_service(place, target),
        "-device", f"virtio-net-pci,netdev=n0,mac={_mac(0, index)}{'' if netboot else ',romfile='}",
        "-netdev", f"dgram,id=n1,local.type=unix,local.path={vm},remote.type=unix,remote.path={place.socket('sw')}",
        "-device", f"virtio-net-pci,netdev=n1,mac={_mac(1, index)},romfile=",
        *identity_channel.device_options(place.socket("identity")),
    ]  # fmt: skip
    command += arch.cpu(chosen)
    if target is not None:
        command += arch.netboot_options(settings, target) if netboot else arch.boot_options(settings, target)
    return command


def _boot_service(place: Place, target: BootTarget | None) -> str:
    """What the user network needs for a boot over it: where the script is, and who answers there."""
    if target is None or target.start is not StartRequest.NETBOOT:
        return ""
    command = shlex.join([sys.executable, "-I", "-S", str(_BOOT_SERVICE), str(place.folder)])
    address = _BOOT_ADDRESS
    return f",bootfile=http://{address}/{SCRIPT},guestfwd=tcp:{address}:80-cmd:{quoted(command)}"


def _own_files(place: Place, index: int, mark: str, identity: Identity) -> bytes:
    return own_files(_settings(place, index, mark), identity)


def _settings(place: Place, index: int, mark: str) -> Mapping[str, str]:
    """What a host reads in its /etc/lab/host.conf."""
    return {"LAB_NAME": place.name, "LAB_IP": f"{NETWORK}.{index}/24", "LAB_MARK": mark, "LAB_UUID": place.uuid}


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
