"""What machines may boot over the network now: boot targets for one boot each, on disk, for whoever hands them out.

    boot/machines/MAC       the token of what the machine is to boot next
    boot/targets/TOKEN/     what the boot service hands out under this token, and what it has handed out

A target is for one boot: once all that Xen needs was fetched, the machine that asks again is told to boot its own disk,
so that a host that restarts by itself does not come up as if nothing had been.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.hosts.bootscript import SCRIPT

MEDIA: Final = "media"
LAST: Final = "initramfs"
"""The file that a loader fetches last: then the machine has all that it boots."""

SERVED: Final = (SCRIPT, "hypervisor", "kernel", LAST, MEDIA)
"""The names under which files are handed out; there are no others."""

KEPT_S: Final = 86_400.0
_MAC: Final = re.compile(r"[0-9a-f]{12}")
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_NOTES: Final = "notes"
_LONGEST_NOTES: Final = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Note:
    """The boot service's memory of one request: `what` was asked for by the address `by`, at Unix time `at`."""

    at: float
    what: str
    by: str


@dataclass(frozen=True)
class BootStore:
    """The targets of a lab, below the folder `root`. Any number of processes may use it at once."""

    root: Path
    clock: Callable[[], float] = time.time

    def arm(self, mac: str, *, host: str, script: Callable[[str], str], files: Mapping[str, Path], for_s: float) -> str:
        """Hand these files to the machine with this MAC address at its next boot, within `for_s` seconds.

        `script` gives the boot script, told the token. Returns the token; what was armed before no longer counts.
        """
        self._tidy()
        token = secrets.token_hex(16)
        folder = self.root / "targets" / token
        folder.mkdir(parents=True, mode=0o700)
        for name, path in files.items():
            if name not in SERVED:
                raise ValueError(name)
            (folder / name).symlink_to(path.resolve())
        (folder / SCRIPT).write_text(script(token))
        (folder / "about.json").write_text(json.dumps({"host": host, "until": self.clock() + for_s}))
        machine = self._machine(mac)
        machine.parent.mkdir(exist_ok=True, mode=0o700)
        new = machine.with_name(f".{machine.name}.{token}")
        new.write_text(token)
        new.replace(machine)
        return token

    def disarm(self, mac: str) -> None:
        """The machine boots its own disk from now on; files of targets that were armed are no longer handed out."""
        machine = self._machine(mac)
        with contextlib.suppress(FileNotFoundError):
            token = machine.read_text()
            machine.unlink()
            if _TOKEN.fullmatch(token):
                (self.root / "targets" / token / "about.json").unlink(missing_ok=True)

    def armed(self, mac: str) -> str | None:
        """The token of what the machine with this address (12 hex digits) is to boot now."""
        if not _MAC.fullmatch(mac):
            return None
        try:
            token = (self.root / "machines" / mac).read_text()
        except OSError:
            return None
        if not self._valid(token) or any(note.what == LAST for note in self.notes(token)):
            return None
        return token

    def file(self, token: str, name: str) -> Path | None:
        """The file of this name of a target that still counts."""
        if name not in SERVED or not self._valid(token):
            return None
        path = self.root / "targets" / token / name
        return path if path.is_file() else None

    def note(self, token: str, what: str, by: str) -> None:
        """Remember that something of a target was asked for."""
        if not _TOKEN.fullmatch(token):
            return
        path = self.root / "targets" / token / _NOTES
        line = json.dumps({"at": self.clock(), "what": what[:64], "by": by[:64]}) + "\n"
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < _LONGEST_NOTES:
                file.write(line.encode())

    def notes(self, token: str) -> Sequence[Note]:
        """What was asked for of a target, oldest first."""
        if not _TOKEN.fullmatch(token):
            return []
        try:
            text = (self.root / "targets" / token / _NOTES).read_text()
        except OSError:
            return []
        return [Note(**json.loads(line)) for line in text.splitlines()]

    def _valid(self, token: str) -> bool:
        if not _TOKEN.fullmatch(token):
            return False
        try:
            about = json.loads((self.root / "targets" / token / "about.json").read_text())
        except OSError:
            return False
        return bool(self.clock() < about["until"])

    def _machine(self, mac: str) -> Path:
        bare = mac.replace(":", "")
        if not _MAC.fullmatch(bare):
            raise ValueError(mac)
        return self.root / "machines" / bare

    def _tidy(self) -> None:
        """Forget targets of the day before."""
        with contextlib.suppress(FileNotFoundError):
            for folder in (self.root / "targets").iterdir():
                with contextlib.suppress(OSError):
                    if self.clock() - folder.stat().st_mtime > KEPT_S:
                        shutil.rmtree(folder, ignore_errors=True)
