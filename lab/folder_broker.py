"""A folder as a message broker that rings: kombu's filesystem transport, whose readers need not poll.

Each reader listens on a socket in the folder's `ears`; whoever puts a message there rings all of them. A ring that is
lost costs `SAFETY_S`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps

SCHEME = "folder"
SAFETY_S = 0.5
"""How often a reader looks without being rung for."""

TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def _address(folder: int, name: str) -> str:
    """A socket's path, through the folder's open descriptor: the path itself may be longer than a socket's may be."""
    return f"/proc/self/fd/{folder}/{name}"


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ring(ears: Path) -> None:
    """Wake every reader; a reader that is gone is forgotten."""
    with (
        contextlib.suppress(FileNotFoundError),
        _opened(ears) as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sender.setblocking(False)
        for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor, which a Path cannot be
            try:
                sender.sendto(b"!", _address(folder, name))
            except ConnectionRefusedError:
                (ears / name).unlink(missing_ok=True)
            except OSError:
                pass  # it has more rings than it can keep, and needs no other


class Ear:
    """One reader's end."""

    def __init__(self, ears: Path) -> None:
        ears.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = ears / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with _opened(ears) as folder:
            self._socket.bind(_address(folder, self._path.name))

    def wait(self, timeout_s: float) -> None:
        """Until somebody rings or the time is over; rings since the last wait count."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
        if ready:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(16)

    def close(self) -> None:
        """Hear no more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


class Channel(filesystem.Channel):
    """A channel whose messages appear whole, and ring."""

    @property
    def ears(self) -> Path:
        """The folder of the readers' sockets."""
        return Path(self.control_folder).parent / "ears"

    def _put(self, queue: str, message: Any, **_kwargs: Any) -> None:  # type: ignore[override]
        """Put a message there under its final name at once: kombu's own may be taken while it is still empty."""
        name = f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        part = Path(self.data_folder_out) / f"{name}.part"
        try:
            part.write_bytes(str_to_bytes(dumps(message)))
            part.rename(Path(self.data_folder_out) / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise ChannelError(f"cannot put a message into {self.data_folder_out}: {error.strerror}") from error
        ring(self.ears)

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        """A reader that was busy may take the next message."""
        super().basic_ack(delivery_tag, multiple=multiple)  # type: ignore[no-untyped-call]
        ring(self.ears)


class Transport(filesystem.Transport):
    """The transport of `folder://`."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)  # type: ignore[no-untyped-call]
        self._ear: Ear | None = None

    def drain_events(self, connection: Any, timeout: float | None = None, **_more: Any) -> None:  # noqa: ARG002
        """Deliver one message; `TimeoutError` when none came in time."""
        client: Any = self.client
        if self._ear is None:
            self._ear = Ear(Path(client.transport_options["control_folder"]).parent / "ears")
        cycle: Any = self.cycle
        end = None if timeout is None else monotonic() + timeout
        while True:
            try:
                cycle.get(self._deliver, timeout=timeout)
            except Empty:
                left = SAFETY_S if end is None else min(SAFETY_S, end - monotonic())
                if left <= 0:
                    raise TimeoutError from None
                self._ear.wait(left)
            else:
                return

    def close_connection(self, connection: Any) -> None:
        """Close everything, the ear too."""
        super().close_connection(connection)  # type: ignore[no-untyped-call]
        if self._ear is not None:
            self._ear.close()
            self._ear = None
