"""The boot service at work for one connection: HTTP on standard input and output, as inetd would call it.

    http_service.py FOLDER

Hands out the boot script and the files it names (see `lab.hosts.bootscript`), which are in FOLDER under their own
names, and nothing else. The machine's network starts one for each connection.

Standard library only, and run by its path, as the console recorder.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

SERVED = ("boot.ipxe", "hypervisor", "kernel", "initramfs")
_LONGEST_HEAD = 16384
_REQUEST = re.compile(rb"(GET|HEAD) /([A-Za-z0-9._-]{1,64}) HTTP/1\.[01]\r?\n")


def serve(folder: Path, asked: BinaryIO, answer: BinaryIO) -> None:
    """Answer one request, then hang up."""
    head = b""
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        line = asked.readline(_LONGEST_HEAD)
        head += line
        if not line or len(head) > _LONGEST_HEAD:
            return
    found = _REQUEST.match(head)
    name = found.group(2).decode() if found is not None else ""
    if found is None or name not in SERVED or not (folder / name).is_file():
        status = b"404 Not Found" if found is not None else b"400 Bad Request"
        answer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answer.flush()
        return
    with (folder / name).open("rb") as file:
        size = (folder / name).stat().st_size
        answer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n"
            + f"Content-Length: {size}\r\n\r\n".encode()
        )
        if found.group(1) == b"GET":
            shutil.copyfileobj(file, answer, 1 << 18)
        answer.flush()


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        sys.exit(0)
