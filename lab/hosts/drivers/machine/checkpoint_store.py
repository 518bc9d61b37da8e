"""The folder of checkpoints: one folder a key, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InfraError
from lab.hosts.drivers.machine.checkpoint import Facts, Kept, to_prune

_MIB = 1 << 20
_SPARE_DISK = 1024 * _MIB


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of a lab's home, of at most `limit_mib` MiB together; 0: none are made or used.

    Safe with several processes at once. A machine goes on if the checkpoint that it was started from is removed.
    """

    folder: Path
    limit_mib: int

    def path(self, key: str) -> Path:
        """The folder of a checkpoint: `ram`, `state` and `facts.json`."""
        return self.folder / key

    def has(self, key: str) -> bool:
        """Whether there is such a checkpoint; it may still turn out to be bad."""
        return self.limit_mib > 0 and (self.path(key) / "facts.json").exists()

    def check(self, key: str) -> Facts:
        """Its facts, held against its files; `InfraError` when they are not what was saved."""
        folder = self.path(key)
        try:
            facts = Facts(**json.loads((folder / "facts.json").read_text()))
            if (size := (folder / "ram").stat().st_size) != facts.memory_bytes:
                raise InfraError(f"its memory has {size} bytes, not {facts.memory_bytes}")
            if (size := (folder / "state").stat().st_size) != facts.state_bytes:
                raise InfraError(f"its state has {size} bytes, not {facts.state_bytes}")
            if hashlib.sha256((folder / "state").read_bytes()).hexdigest() != facts.state_sha256:
                raise InfraError("its state is not what was saved")
            os.utime(folder)
        except (OSError, ValueError, TypeError) as error:
            raise InfraError(f"it cannot be read: {error}") from error
        return facts

    def add(self, key: str, write: Callable[[Path], Facts]) -> bool:
        """Let `write` fill a folder and keep it as `key`; False when somebody else was quicker.

        Older checkpoints make room. `InfraError` when there is none to be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._alone():
                if self.has(key):
                    return False
                for left in self.folder.glob(".*-new"):  # by the lock, nobody writes in it any more
                    shutil.rmtree(left, ignore_errors=True)
                self._prune(key)
                if (free := shutil.disk_usage(self.folder).free) < 2 * _SPARE_DISK:
                    raise InfraError(f"only {free // _MIB} MiB of disk are free")
                new = self.folder / f".{key}-new"
                new.mkdir(mode=0o700)
                try:
                    facts = write(new)
                    (new / "facts.json").write_text(json.dumps(dataclasses.asdict(facts), indent=1))
                    self._remove(key)
                    new.rename(self.path(key))
                finally:
                    shutil.rmtree(new, ignore_errors=True)
                self._prune(key)
                return True
        except OSError as error:
            raise InfraError(f"no checkpoint was saved: {error}") from error

    def discard(self, key: str) -> None:
        """Throw a checkpoint away."""
        with contextlib.suppress(OSError):
            self._remove(key)

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file's content; remembered for as long as the file is not touched."""
        found = path.resolve()
        status = found.stat()
        sign = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
        notes = self.folder / ".digests.json"
        known: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(notes.read_text())
        if known.get(str(found), ["", ""])[0] == sign:
            return known[str(found)][1]
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = {name: note for name, note in known.items() if Path(name).exists()} | {str(found): [sign, digest]}
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # a job's hosts boot in threads of one process; what another one notes meanwhile may be lost, and is found again
        new = notes.with_name(f"{notes.name}.{os.getpid()}.{threading.get_ident()}")
        new.write_text(json.dumps(known))
        new.replace(notes)
        return digest

    def _prune(self, spare: str) -> None:
        kept = [
            Kept(key=path.name, bytes=_disk_use(path), used_at=path.stat().st_mtime)
            for path in self.folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ]
        for key in to_prune(kept, limit=self.limit_mib * _MIB, now=time.time(), spare=spare):
            self.discard(key)

    def _remove(self, key: str) -> None:
        # Renamed first: whoever looks for it either finds it whole or not at all.
        gone = self.folder / f".{key}-gone-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(FileNotFoundError):
            self.path(key).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self, within_s: float = 20.0) -> Iterator[None]:
        until = time.monotonic() + within_s
        with (self.folder / ".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise InfraError(f"the checkpoints were in use for {within_s:.0f} s") from None
                    time.sleep(0.05)
            yield


def _disk_use(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
