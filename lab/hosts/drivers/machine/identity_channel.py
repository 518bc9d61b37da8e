"""The channel on which a restored machine is told who it is: a virtio port, named pipes at our end.

Pipes, because a port whose other end is a socket nobody is connected to reads as closed in dom0.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lab.errors import InfraError

PORT: Final = "lab.identity"
_ANSWER_LIMIT: Final = 256


def device_options(path: str) -> list[str]:
    """QEMU's options for the port; its pipes are `path`.in and `path`.out."""
    return [
        "-device", "virtio-serial-pci",
        "-chardev", f"pipe,id=identity,path={path}", "-device", f"virtserialport,chardev=identity,name={PORT}",
    ]  # fmt: skip


def make_pipes(path: str) -> None:
    """Fresh and empty pipes for a machine about to start."""
    for end in (f"{path}.in", f"{path}.out"):
        Path(end).unlink(missing_ok=True)
        os.mkfifo(end, 0o600)


def message(values: Mapping[str, str | bytes]) -> bytes:
    """KEY=VALUE lines, ended by an empty line; bytes go as base64.

    >>> message({"LAB_NAME": "emu0", "LAB_HOST_KEY": b"key"})
    b'LAB_NAME=emu0\\nLAB_HOST_KEY=a2V5\\n\\n'
    """
    lines = []
    for key, value in values.items():
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        if "\n" in text or not text:
            raise ValueError(f"{key} is no line of a message")
        lines.append(f"{key}={text}\n")
    return "".join(lines).encode() + b"\n"


def tell(path: str, text: bytes, *, alive: Callable[[], bool], within_s: float) -> None:
    """Send a message and wait until dom0 has obeyed; `InfraError` when it does not, or the machine ends."""
    until = time.monotonic() + within_s
    with contextlib.ExitStack() as closing:
        ends = []
        for end in (f"{path}.in", f"{path}.out"):
            try:
                ends.append(os.open(end, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
                closing.callback(os.close, ends[-1])
                if not stat.S_ISFIFO(os.fstat(ends[-1]).st_mode):
                    raise InfraError(f"{end} is no pipe")
            except OSError as error:
                raise InfraError(f"the identity channel is not there: {error}") from error
        into, out = ends
        if os.write(into, text) != len(text):
            raise InfraError("the identity channel is full")
        answer = b""
        while b"\n" not in answer:
            if time.monotonic() > until:
                raise InfraError(f"dom0 did not take up its identity within {within_s:.0f} s")
            if select.select([out], [], [], 0.1)[0]:
                answer += os.read(out, _ANSWER_LIMIT)
            elif not alive():
                raise InfraError("the machine ended before dom0 took up its identity")
        if answer.split(b"\n")[0] != b"ok":
            raise InfraError(f"dom0 did not take up its identity: {answer[:_ANSWER_LIMIT].decode(errors='replace')!r}")
