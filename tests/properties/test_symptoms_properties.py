"""The fatal matcher: finds a panic wherever the stream is cut, and keeps little."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.symptoms import FatalMatcher, Symptom

PANICS = {
    b"(XEN) Panic on CPU 0:": "Xen panic",
    b"(XEN) Xen BUG at spinlock.c:48": "Xen panic",
    b"(XEN) FATAL TRAP: vec 14, #PF[0000]": "Xen panic",
    b"(XEN) Watchdog timer fired for domain 0": "Xen watchdog",
    b"(XEN) Watchdog timer detects that CPU3 is stuck!": "Xen watchdog",
    b"[    1.2] Kernel panic - not syncing: Attempted to kill init!": "dom0 kernel panic",
    b"(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.": "dom0 crashed",
}


def feed(data: bytes, cuts: list[int]) -> list[Symptom]:
    matcher, found, start = FatalMatcher(), [], 0
    for end in [*sorted(cuts), len(data)]:
        if symptom := matcher.feed(data[start:end]):
            found.append(symptom)
        start = end
    return found


@given(
    st.sampled_from(sorted(PANICS)),
    st.binary(max_size=1500),
    st.binary(max_size=300),
    st.data(),
)
def test_a_panic_is_found_however_the_stream_is_cut(
    line: bytes, before: bytes, after: bytes, data: st.DataObject
) -> None:
    stream = before + b"\r\n" + line + b"\r\n" + after
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    found = feed(stream, cuts)
    assert found
    assert len(found[0].line) <= 512


@given(st.sampled_from(sorted(PANICS)))
def test_a_panic_that_comes_byte_by_byte_is_named(line: bytes) -> None:
    first = feed(b"\n" + line + b"\n", list(range(len(line))))[0]
    assert first.name == PANICS[line]


@given(st.lists(st.sampled_from([b"(XEN) d1v0 Unhandled", b"login: ", b"panic", b"BUG", b"\xff\0", b"\r\n"])))
def test_an_ordinary_console_has_no_symptom(chunks: list[bytes]) -> None:
    matcher = FatalMatcher()
    assert not any(matcher.feed(chunk) for chunk in chunks)


def test_memory_is_bounded_even_on_a_stream_without_lines() -> None:
    matcher = FatalMatcher()
    for _ in range(200):
        assert matcher.feed(b"x" * 4096) is None
    assert sum(len(value) for value in vars(matcher).values()) <= 1024


def test_one_panic_is_told_once() -> None:
    matcher = FatalMatcher()
    assert matcher.feed(b"(XEN) Panic on CPU 0:\n") is not None
    assert matcher.feed(b"(XEN) Reboot in five seconds...\n") is None


@pytest.mark.parametrize("size", [10, 5000])
def test_a_symptoms_line_is_readable_text(size: int) -> None:
    symptom = FatalMatcher().feed(b"\xff" * size + b" Panic on CPU 1: \xfe" + b"y" * size)
    assert symptom is not None
    symptom.line.encode()
    assert len(symptom.line) <= 512
