"""The keys of an embedded host: ours to log in with, and its own to be known by."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)


@dataclass(frozen=True, repr=False)
class Identity:
    """`client_key_file` opens the host; `host_public` (base64 of an ssh-ed25519 key) is what the host must show."""

    client_key_file: Path
    client_public: str
    host_public: str
    host_key_dropbear: bytes


def identity_of(folder: Path) -> Identity:
    """The keys kept in a folder, made on first use. Callers hold the host's power lock, or made them before."""
    client, host = folder / "client_key", folder / "host_key"
    if not host.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(client, _openssh(Ed25519PrivateKey.generate()))
        _write(host, Ed25519PrivateKey.generate().private_bytes_raw())
    from_file = _load_client(client)
    host_key = Ed25519PrivateKey.from_private_bytes(host.read_bytes())
    public = host_key.public_key().public_bytes_raw()
    return Identity(
        client_key_file=client,
        client_public=from_file,
        host_public=base64.b64encode(_string(b"ssh-ed25519") + _string(public)).decode(),
        host_key_dropbear=_string(b"ssh-ed25519") + _string(host_key.private_bytes_raw() + public),
    )


def _load_client(path: Path) -> str:
    public = load_ssh_private_key(path.read_bytes(), None).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _openssh(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    new.replace(path)
