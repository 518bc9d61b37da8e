"""QEMU's machine protocol, the little of it we speak."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any

from lab.errors import InfraError


class Qmp:
    """A session with one QEMU; every failure is an `InfraError`."""

    def __init__(self, path: str, *, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._path = path
        try:
            self._socket.connect(path)
            self._lines = self._socket.makefile("r", encoding="utf-8")
            self._lines.readline()
        except OSError as error:
            self._socket.close()
            raise InfraError(f"QEMU does not answer at {path}: {error}") from error
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one command and return what it answers."""
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while line := self._lines.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise InfraError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
        except (OSError, ValueError) as error:
            raise InfraError(f"QEMU does not answer {command} at {self._path}: {error}") from error
        raise InfraError(f"QEMU ended during {command}")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()
