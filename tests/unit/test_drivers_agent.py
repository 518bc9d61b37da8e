"""The guest agent's language is understood through any garbage, and never half a line of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.hosts.drivers.guest import agent
from lab.hosts.protocols import Heartbeat

printed = st.characters(blacklist_characters="\n", codec="utf-8")
garbage = st.text(printed, max_size=40).filter(lambda text: "LAB" not in text)
beats = st.builds(
    Heartbeat,
    seq=st.integers(0, 10**6),
    wall_s=st.integers(0, 2 * 10**12).map(lambda ms: ms / 1000),
    mono_s=st.integers(0, 10**9).map(lambda ms: ms / 1000),
    maxgap_ms=st.integers(0, 10**6),
    memory_ok=st.booleans(),
)


def line(beat: Heartbeat) -> str:
    memory = "ok" if beat.memory_ok else "bad"
    times = f"wall={beat.wall_s:.3f} mono={beat.mono_s:.3f}"
    return f"LAB-HB seq={beat.seq} {times} maxgap_ms={beat.maxgap_ms} mem={memory}"


@given(st.lists(st.tuples(beats, garbage), unique_by=lambda pair: pair[0].seq), st.sampled_from(["\n", "\r\n"]))
def test_heartbeats_are_found_between_garbage(items: list[tuple[Heartbeat, str]], end: str) -> None:
    text = "".join(f"{noise}{end}{line(beat)}{end}" for beat, noise in items)
    assert agent.heartbeats(text) == sorted((beat for beat, _ in items), key=lambda beat: beat.seq)


@given(beats, st.integers(0, 80))
def test_half_a_heartbeat_is_none(beat: Heartbeat, cut: int) -> None:
    whole = line(beat)
    assert agent.heartbeats(whole[:cut]) == []
    assert agent.heartbeats(whole) == []  # its line has not ended
    if cut < len(whole) - len("mem=bad"):
        assert agent.heartbeats(whole[:cut] + "\n") == []


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    agent.heartbeats(text)
    assert agent.reply(text, "0123abcd") is None or "LAB-REPLY 0123abcd" in text


def test_the_first_of_two_heartbeats_of_one_number_counts() -> None:
    one, two = Heartbeat(seq=1, wall_s=1, mono_s=1, maxgap_ms=0, memory_ok=True), None
    two = Heartbeat(seq=1, wall_s=2, mono_s=2, maxgap_ms=0, memory_ok=True)
    zero = Heartbeat(seq=0, wall_s=0, mono_s=0, maxgap_ms=0, memory_ok=False)
    assert agent.merged([one, two, zero]) == [zero, one]


@given(st.lists(garbage.map(lambda t: t.strip("\r")), max_size=5), garbage, st.booleans())
def test_a_reply_comes_with_its_lines(output: list[str], noise: str, ok: bool) -> None:
    text = f"LAB ab12 sh something\r\n{noise}\r\n"
    for said in output:
        text += f"LAB-OUT ab12 {said}\r\nLAB-HB seq=1\r\nLAB-OUT ffff other\r\n"
    verdict = "ok" if ok else "error"
    assert agent.reply(text + f"LAB-REPLY ab12 {verdict} exit=0", "ab12") is None
    found = agent.reply(text + f"LAB-REPLY ffff ok x\r\nLAB-REPLY ab12 {verdict} exit=0\r\n", "ab12")
    assert found is not None
    assert (found.ok, found.text, found.lines) == (ok, "exit=0", tuple(output))


def test_a_request_is_one_line_of_the_agents_language() -> None:
    assert agent.request("ab", "sh", "echo 'x y'") == "LAB ab sh echo 'x y'\n"
    assert agent.request("ab", "ping", "") == "LAB ab ping\n"
    for verb, argument in (("PING", ""), ("sh x", ""), ("sh", "a\nb"), ("sh", "a\rb"), ("sh", "x" * 5000)):
        with pytest.raises(ConfigError):
            agent.request("ab", verb, argument)


def test_lines_that_end_the_other_way_round_are_lines() -> None:
    """As Xen prints them when it is the shim of a guest."""
    found = agent.reply("ready\n\rLAB-OUT aa one\n\rLAB-OUT aa two\n\rLAB-REPLY aa ok exit=0\n\r", "aa")
    assert found is not None
    assert (found.ok, found.lines) == (True, ("one", "two"))
