"""Where a host lives on disk, and the two notes kept there: what to boot next, and what was booted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.errors import InfraError
from lab.hosts.protocols import BootTarget, Start, StartRequest

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
_LONGEST_SOCKET_FOLDER = 100 - len("/" + "x" * 32 + ".console")


@dataclass(frozen=True, kw_only=True)
class BootRecord:
    """What one power-on left for whoever uses the host: `mark` is what this boot says when it is ready.

    `start` is how the machine came up, `note` says it to people. `checkpoint` is the key of the checkpoint it was
    started from, or of the one that it can be saved as once it is ready; empty when there is none. `token` is that of
    the boot target which a real machine was to fetch, and `at` the Unix time of its power-on.
    """

    mark: str
    ssh_port: int
    console_offset: int
    accel: str
    start: Start = "cold"
    checkpoint: str = ""
    note: str = ""
    token: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Place:
    """The files of one host: its run folder below the lab's home, and its sockets."""

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        """The run folder: everything about the host but its sockets."""
        return self.home / "hosts" / self.name

    @cached_property
    def uuid(self) -> str:
        """The machine's SMBIOS UUID; it also marks its process, so it is this lab's own."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"flightline:{self.home.resolve()}/{self.name}"))

    @property
    def pid_file(self) -> Path:
        """The machine's process."""
        return self.folder / "qemu.pid"

    @property
    def qemu_log(self) -> Path:
        """What QEMU itself complained about."""
        return self.folder / "qemu.log"

    @property
    def console_log(self) -> Path:
        """The serial console, every byte since the host was first powered on."""
        return self.folder / "console.log"

    @property
    def console_index(self) -> Path:
        """When they came."""
        return self.folder / "console.idx"

    @property
    def recorder_pid_file(self) -> Path:
        """The console recorder's process."""
        return self.folder / "recorder.pid"

    @property
    def switch_folder(self) -> Path:
        """Where the lab's sockets are."""
        return socket_folder(self.home)

    def socket(self, kind: str) -> str:
        """The path of one of the host's sockets: serial, console, qmp, vm, sw or libvirt; identity: its pipes."""
        return f"{self.switch_folder}/{self.name}.{kind}"

    def create(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_private(self.switch_folder)

    def save_target(self, target: BootTarget) -> None:
        """Note what the next power-on boots."""
        self.create()
        plain = {one.name: getattr(target, one.name) for one in dataclasses.fields(target)}
        plain["checksums"] = dict(target.checksums)
        _write(self.folder / "target.json", json.dumps(plain, default=str, indent=1))

    def target(self) -> BootTarget | None:
        """What the next power-on boots; None when nobody has said."""
        data = _read(self.folder / "target.json")
        if data is None:
            return None
        return BootTarget(
            key=data["key"],
            hypervisor=Path(data["hypervisor"]),
            kernel=Path(data["kernel"]),
            initramfs=Path(data["initramfs"]),
            xen_args=tuple(data["xen_args"]),
            dom0_args=tuple(data["dom0_args"]),
            media=Path(data["media"]) if data["media"] else None,
            overlays=tuple(Path(path) for path in data.get("overlays", ())),
            build_id=data.get("build_id", ""),
            checksums=data.get("checksums", {}),
            start=StartRequest(data.get("start", "auto")),
        )

    def save_boot(self, record: BootRecord) -> None:
        """Note the power-on that is now."""
        _write(self.folder / "boot.json", json.dumps(dataclasses.asdict(record)))

    def boot(self) -> BootRecord | None:
        """The last power-on; None when there was none."""
        data = _read(self.folder / "boot.json")
        return None if data is None else BootRecord(**data)

    def add_note(self, text: str) -> None:
        """Add to what people are told of the power-on that is now."""
        if (record := self.boot()) is not None:
            self.save_boot(dataclasses.replace(record, note=f"{text}; {record.note}" if record.note else text))

    @property
    def checkpoint(self) -> Path:
        """A link to the checkpoint that the machine is started from."""
        return self.folder / "checkpoint"


def socket_folder(home: Path) -> Path:
    """A folder for the lab's sockets whose path is short enough for one, and safe in QEMU's option syntax."""
    inside = home.resolve() / "run"
    if len(str(inside)) <= _LONGEST_SOCKET_FOLDER and _PLAIN.fullmatch(str(inside)):
        return inside
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return Path(f"/tmp/flightline-{os.getuid()}-{digest}")  # noqa: S108 - private and checked, see _make_private


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise InfraError(f"{folder} belongs to somebody else", hint="remove it, or use another LAB_HOME")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return data
