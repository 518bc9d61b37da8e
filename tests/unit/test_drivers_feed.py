"""The stream of guest consoles: frames in any chunks, logs that begin anew, and a program that is not there."""

from __future__ import annotations

import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import InfraError, StepFailure
from lab.hosts.drivers.guest.feed import KEPT, Frames, GuestFeed


class ScriptedStream:
    """A stream that prints what a test puts into it."""

    def __init__(self) -> None:
        self.printed: queue.Queue[bytes | None] = queue.Queue()
        self.typed: list[bytes] = []
        self.closed = threading.Event()

    def read(self, timeout_s: float) -> bytes | None:
        try:
            return self.printed.get(timeout=min(timeout_s, 0.05))
        except queue.Empty:
            return None if self.closed.is_set() else b""

    def write(self, data: bytes) -> None:
        self.typed.append(data)

    def close(self) -> None:
        self.closed.set()


def piece(name: str, offset: int, data: bytes) -> bytes:
    return f"D {name} {offset} {len(data)}\n".encode() + data


def settled(feed: GuestFeed, name: str, size: int) -> tuple[int, bytes]:
    for _ in range(100):
        offset, data = feed.log(name)
        if offset + len(data) >= size:
            break
        feed.wait(0.05)
    return feed.log(name)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_frames_are_the_same_however_the_stream_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(piece("guest-g.log", index, data) for index, data in enumerate(pieces)) + b"A x1 ok\n"
    frames, got, answers = Frames(), [], []
    at, turn = 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found, said = frames.feed(stream[at : at + step])
        got += found
        answers += said
        at, turn = at + step, turn + 1
    assert got == [("guest-g.log", index, data) for index, data in enumerate(pieces)]
    assert answers == [("x1", "ok")]


def test_a_stream_that_is_no_such_stream_is_refused() -> None:
    with pytest.raises(InfraError, match="garbled"):
        Frames().feed(b"sh: guest-consoles: not found\n")


def test_a_log_that_begins_anew_replaces_the_old_one() -> None:
    stream = ScriptedStream()
    feed = GuestFeed("h", lambda: stream)
    stream.printed.put(piece("guest-g.log", 0, b"first life\n"))
    assert settled(feed, "guest-g.log", 11) == (0, b"first life\n")
    stream.printed.put(piece("guest-g.log", 0, b"second"))
    stream.printed.put(piece("guest-g.log", 6, b" life, longer\n"))
    assert settled(feed, "guest-g.log", 20) == (0, b"second life, longer\n")
    feed.close()


def test_a_log_that_was_removed_is_forgotten() -> None:
    stream = ScriptedStream()
    feed = GuestFeed("h", lambda: stream)
    stream.printed.put(piece("guest-g.log", 0, b"first life\n"))
    assert settled(feed, "guest-g.log", 11) == (0, b"first life\n")
    stream.printed.put(piece("guest-g.log", 0, b""))
    stream.printed.put(piece("guest-other.log", 0, b"x"))
    settled(feed, "guest-other.log", 1)
    assert feed.log("guest-g.log") == (0, b"")
    feed.close()


def test_only_the_end_of_a_long_log_is_kept_and_its_offset_is_right() -> None:
    stream = ScriptedStream()
    feed = GuestFeed("h", lambda: stream)
    for index in range(3):
        stream.printed.put(piece("guest-g.log", index * KEPT // 2, bytes([65 + index]) * (KEPT // 2)))
    offset, data = settled(feed, "guest-g.log", 3 * KEPT // 2)
    assert (offset, len(data), data[:1], data[-1:]) == (KEPT // 2, KEPT, b"B", b"C")
    feed.close()


def test_typing_waits_for_the_answer_and_tells_a_guest_without_console() -> None:
    stream = ScriptedStream()
    feed = GuestFeed("h", lambda: stream)
    feed.log("guest-g.log")

    def answer() -> None:
        while not stream.typed:
            pass
        ident = stream.typed[0].split()[1].decode()
        stream.printed.put(f"A {ident} error no console of g\n".encode())

    threading.Thread(target=answer).start()
    with pytest.raises(StepFailure, match="no console of g"):
        feed.type("g", "LAB a ping", timeout_s=5)
    feed.close()


def test_a_host_without_the_program_is_the_labs_fault() -> None:
    stream = ScriptedStream()
    stream.printed.put(None)
    stream.closed.set()
    with pytest.raises(InfraError, match="does not run there"):
        GuestFeed("h", lambda: stream).log("guest-g.log")
