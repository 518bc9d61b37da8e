"""The initramfs of one boot: the image's, what overlays it, and what makes this host itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import InfraError
from lab.hosts.drivers.shell.identity import Identity
from lab.hosts.protocols import BootTarget
from lab.image_formats import Entry, cpio_archive


def stage_initramfs(name: str, target: BootTarget, own: bytes, to: Path) -> None:
    """Write the initramfs of a host's boot; `own` is an archive of its own files."""
    try:
        with target.initramfs.open("rb") as base, to.open("wb") as staged:
            shutil.copyfileobj(base, staged, 1 << 20)
            for path in target.overlays:
                staged.write(b"\0" * (-staged.tell() % 4))  # the kernel wants each archive on a multiple of 4
                staged.write(path.read_bytes())
            staged.write(b"\0" * (-staged.tell() % 4))
            staged.write(own)
    except OSError as error:
        raise InfraError(f"{name}: cannot prepare its initramfs: {error}") from error


def own_files(settings: Mapping[str, str], identity: Identity, more: Sequence[Entry] = ()) -> bytes:
    """Who a host is (`settings` for its /etc/lab/host.conf), and the keys it knows and is known by."""
    conf = "".join(f"{key}={value}\n" for key, value in settings.items())
    return cpio_archive([
        Entry.file("etc/lab/host.conf", conf.encode()),
        Entry.folder("root", 0o700),
        Entry.folder("root/.ssh", 0o700),
        Entry.file("root/.ssh/authorized_keys", f"{identity.client_public}\n".encode(), 0o600),
        Entry.file("etc/dropbear/dropbear_ed25519_host_key", identity.host_key_dropbear, 0o600),
        *more,
    ])  # fmt: skip
