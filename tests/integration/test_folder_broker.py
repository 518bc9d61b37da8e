"""The folder as a broker: messages are whole, readers are rung for, and dead readers are forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Queue

from lab.broker import make_celery
from lab.folder_broker import SAFETY_S, SCHEME, Ear, Transport, ring
from lab.settings import Settings

LAB = Queue("lab")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / ("long" * 40)  # longer than the path of a socket may be
    for name in ("messages", "control"):
        (home / name).mkdir(parents=True)
    return home


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    with connected(folder) as made:
        yield made


def connected(folder: Path) -> Connection:
    messages = str(folder / "messages")
    options = {"data_folder_in": messages, "data_folder_out": messages, "control_folder": str(folder / "control")}
    return Connection(f"{SCHEME}://", transport_options=options)


def publish(connection: Connection, body: Any) -> None:
    connection.Producer().publish(body, routing_key=LAB.name, declare=[LAB])


def test_a_message_comes_at_once_and_not_at_the_next_look(folder: Path, connection: Connection) -> None:
    took: list[float] = []
    listening = threading.Event()

    def read() -> None:
        with connected(folder) as mine:

            def take(sent: float, message: Any) -> None:
                took.append(time.monotonic() - sent)
                message.ack()

            with mine.Consumer(LAB, callbacks=[take]):
                while len(took) < 10:
                    listening.set()
                    try:
                        mine.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    reader = threading.Thread(target=read)
    reader.start()
    assert listening.wait(10)
    for _ in range(10):
        time.sleep(0.05)
        publish(connection, time.monotonic())
    reader.join(20)
    assert len(took) == 10
    assert sorted(took)[5] < SAFETY_S / 5, took
    assert list((folder / "ears").iterdir()) == [], "who has gone hears no more"


def test_a_message_that_is_being_written_is_not_taken(folder: Path, connection: Connection) -> None:
    publish(connection, {"whole": True})
    (found,) = (folder / "messages").iterdir()
    found.rename(found.with_name(found.name + ".part"))
    with connection.Consumer(LAB, callbacks=[lambda _body, message: message.ack()]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        found.with_name(found.name + ".part").rename(found)
        connection.drain_events(timeout=1)


def test_a_dead_reader_is_forgotten_and_a_deaf_one_stops_nobody(tmp_path: Path) -> None:
    dead, deaf = Ear(tmp_path / "ears"), Ear(tmp_path / "ears")
    dead._socket.close()  # as kill -9 does
    for _ in range(1000):
        ring(tmp_path / "ears")
    assert [path.name for path in (tmp_path / "ears").iterdir()] == [deaf._path.name]
    begun = time.monotonic()
    deaf.wait(5)
    assert time.monotonic() - begun < 1
    deaf.close()
    ring(tmp_path / "ears")
    ring(tmp_path / "nowhere")


def test_the_embedded_lab_rings(tmp_path: Path) -> None:
    with make_celery(Settings(home=tmp_path)).connection() as connection:
        assert isinstance(connection.transport, Transport)
