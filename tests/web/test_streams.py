from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from weblab import Demo

from lab.db.flights import last_event

LIMITS = httpx.Timeout(20)


def messages(lines: Iterator[str], count: int) -> list[tuple[int, dict[str, object]]]:
    """(id, data) of the next `count` events."""
    found: list[tuple[int, dict[str, object]]] = []
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            found.append((number, json.loads(line[6:])))
            if len(found) == count:
                return found
    return found


def newest(demo: Demo) -> int:
    with demo.lab.reads() as session:
        return last_event(session)


def test_events_come_as_they_happen_and_only_those_asked_for(demo: Demo, url: str) -> None:
    with httpx.stream("GET", f"{url}/events?flight=3", timeout=LIMITS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        demo.add(1, "other")
        demo.add(3, "step", testid="x")
        [(number, data)] = messages(lines, 1)
    assert data == {"kind": "step", "data": {"testid": "x"}}
    assert number == newest(demo)


def test_events_of_other_kinds_are_left_out(demo: Demo, url: str) -> None:
    with httpx.stream("GET", f"{url}/events?kinds=plan,host", timeout=LIMITS) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        demo.add(3, "step")
        demo.add(3, "plan")
        [(number, data)] = messages(lines, 1)
    assert (data["kind"], number) == ("plan", newest(demo))


def test_a_browser_that_comes_back_misses_nothing(demo: Demo, url: str) -> None:
    seen = newest(demo)
    demo.add(3, "one")
    demo.add(3, "two")
    for headers, query in (({"Last-Event-ID": str(seen)}, "?after=0"), ({}, f"?after={seen}")):
        with httpx.stream("GET", f"{url}/events{query}", headers=headers, timeout=LIMITS) as answer:
            assert [data["kind"] for _, data in messages(answer.iter_lines(), 2)] == ["one", "two"]


def test_streams_are_bounded_and_end_with_their_readers(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(httpx.stream("GET", f"{url}/events", timeout=LIMITS))
        refused = httpx.get(f"{url}/events", timeout=LIMITS)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert httpx.get(f"{url}/", timeout=LIMITS).status_code == 200
    limit = time.monotonic() + 10
    while True:
        with httpx.stream("GET", f"{url}/events", timeout=LIMITS) as answer:
            if answer.status_code == 200:
                return
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_the_log_of_an_ended_step_is_sent_and_closed(url: str) -> None:
    text = httpx.get(f"{url}/flights/3/jobs/test-amd64-xsm/log/1/9/stream", timeout=LIMITS).text
    assert text.endswith("event: end\ndata: {}\n\n")
    assert "alert(1)" in text
    assert "\\u001b" not in text


def test_the_log_of_a_running_step_grows_and_ends_with_it(demo: Demo, url: str) -> None:
    path = "/flights/3/jobs/test-amd64-xl-pvh/log/1/8/stream"
    log = demo.lab.logs / "3" / "test-amd64-xl-pvh" / "1" / "08.guest-create.log"
    with httpx.stream("GET", f"{url}{path}", timeout=LIMITS) as answer:
        lines = answer.iter_lines()
        [(offset, _)] = messages(lines, 1)
        assert offset == log.stat().st_size
        with log.open("a") as file:
            file.write("more …\r\n")
        [(offset, data)] = messages(lines, 1)
        assert data["text"] == "more …\n"
        assert offset == log.stat().st_size
        demo.finish_step()
        assert "event: end" in list(lines)


def test_a_console_is_followed_from_where_one_was(demo: Demo, url: str) -> None:
    console = demo.lab.settings.home / "hosts" / "emu1" / "console.log"
    size = console.stat().st_size
    with httpx.stream("GET", f"{url}/hosts/emu1/console/stream?from={size}", timeout=LIMITS) as answer:
        lines = answer.iter_lines()
        next(lines)
        with console.open("ab") as file:
            file.write(b"(XEN) \x1b[31mpanic\xe2\x80")
        [(offset, data)] = messages(lines, 1)
        assert data["text"] == "(XEN) panic"
        with console.open("ab") as file:
            file.write(b"\xa6\r\n")
    again = httpx.stream(
        "GET", f"{url}/hosts/emu1/console/stream", headers={"Last-Event-ID": str(offset)}, timeout=LIMITS
    )
    with again as answer:
        assert messages(answer.iter_lines(), 1)[0][1]["text"] == "…\n"


@pytest.mark.parametrize("line", [b"x" * 60 + b"\n", b"y" * 300_000])
def test_a_long_console_begins_near_its_end(demo: Demo, url: str, line: bytes) -> None:
    console = demo.lab.settings.home / "hosts" / "emu0" / "console.log"
    console.parent.mkdir()
    console.write_bytes(line * (3_000_000 // len(line)))
    size = console.stat().st_size
    for query in ("", "?from=0"):
        with httpx.stream("GET", f"{url}/hosts/emu0/console/stream{query}", timeout=LIMITS) as answer:
            _, data = messages(answer.iter_lines(), 1)[0]
            assert isinstance(data["skipped"], int)
            assert size - 70_000 < data["skipped"] < size


def test_a_console_that_begins_anew_says_so(demo: Demo, url: str) -> None:
    (demo.lab.settings.home / "hosts" / "emu1" / "console.log").write_bytes(b"again\n")
    with httpx.stream("GET", f"{url}/hosts/emu1/console/stream?from=9000", timeout=LIMITS) as answer:
        assert messages(answer.iter_lines(), 1) == [(6, {"text": "again\n", "skipped": 0, "reset": True})]
