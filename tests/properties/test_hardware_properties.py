"""What a machine tells of its hardware: real lines of logs, sensors and consoles, and whatever else may stand there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.hardware import (
    Fault,
    HardwareMatcher,
    Severity,
    console_faults,
    new_faults,
    redfish_faults,
    sel_faults,
    sensor_faults,
)
from lab.hosts.health import hardware_failed
from lab.hosts.model import Health

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


@pytest.mark.parametrize(
    ("event", "severity"),
    [
        ("Memory #0x08 | Uncorrectable ECC | Asserted", CRITICAL),
        ("Memory #0x08 | Correctable ECC | Asserted", WARNING),
        ("Processor CPU0 | IERR | Asserted", CRITICAL),
        (
            "Temperature CPU Temp | Upper Critical going high | Asserted | Reading 101 > Threshold 100 degrees C",
            CRITICAL,
        ),
        ("Temperature CPU Temp | Upper Non-critical going high | Asserted", WARNING),
        ("Voltage VBAT | Lower Non-recoverable going low  | Asserted", CRITICAL),
        ("Power Supply PS1 | Failure detected | Asserted", WARNING),
        ("Power Supply PS1 | Presence detected | Asserted", None),
        ("Event Logging Disabled SEL | Log area reset/cleared | Asserted", None),
        ("System Event | OEM System boot event | Asserted", None),
    ],
)
def test_events_of_the_log(event: str, severity: Severity | None) -> None:
    line = f"   a | 11/24/2026 | 10:01:02 UTC | {event}\n"
    assert [fault.severity for fault in sel_faults(line)] == ([severity] if severity else [])


def test_what_was_deasserted_since_is_no_fault() -> None:
    hot = "Temperature CPU Temp | Upper Critical going high"
    log = f"   1 | 11/24/2026 | 10:01:02 | {hot} | Asserted\n   2 | 11/24/2026 | 10:05:00 | {hot} | Deasserted\n"
    assert sel_faults(log) == ()
    assert len(sel_faults(log + f"   3 | 11/24/2026 | 11:00:00 | {hot} | Asserted\n")) == 1
    assert sel_faults("SDRR successfully erased\nErr in cmd get sensor sdr info\nSEL has no entries\n") == ()


def test_sensors_beyond_their_thresholds() -> None:
    text = (
        "CPU Temp         | 30h | cr  |  3.1 | 101 degrees C\n"
        "Fan1             | 41h | nc  | 29.1 | 400 RPM\n"
        "Fan2             | 42h | ns  | 29.2 | No Reading\n"
        "12V              | 60h | ok  |  7.1 | 12.06 Volts\n"
        "PS1 Status       | 70h | ok  | 10.1 | Presence detected\n"
    )
    assert [(fault.line, fault.severity) for fault in sensor_faults(text)] == [
        ("CPU Temp: cr", CRITICAL),
        ("Fan1: nc", WARNING),
    ]


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("[   12.345678] EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Ha#0 (channel:0 slot:0)", CRITICAL),
        ("[   12.345678] EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0 (channel:0 slot:0)", WARNING),
        ("EDAC skx MC1: 3 CE error", WARNING),
        ("[    1.0] mce: [Hardware Error]: CPU 3: Machine Check Exception: 5 Bank 4: b200000000070f0f", CRITICAL),
        ("[    1.0] mce: [Hardware Error]: Machine check events logged", WARNING),
        ("[    1.0] {1}[Hardware Error]: event severity: fatal", CRITICAL),
        ("[    1.0] {1}[Hardware Error]: event severity: corrected", WARNING),
        ("(XEN) [2026-11-25 10:00:00] CPU0: Machine Check Exception: 0000000000000004", CRITICAL),
        ("(XEN) MCE: Fatal error happened on CPUs 1", CRITICAL),
        ("[    9.0] mce: CPU0: Core temperature above threshold, cpu clock throttled (total events = 1)", WARNING),
        ("[    0.4] EDAC MC: Ver: 3.0.0", None),
        ("[    4.4] EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0", None),
        ("[    0.1] mce: CPU supports 20 MCE banks", None),
        ("(XEN) CPU0: Intel machine check reporting enabled", None),
        ("(d1) EDAC MC0: 1 UE a guest says so", None),
        ("(XEN) d1v0 EDAC MC0: 1 UE a guest says so", None),
        ("root@dom0:~# echo EDAC MC0: 1 UE", None),
    ],
)
def test_lines_of_a_console(line: str, severity: Severity | None) -> None:
    found = console_faults(line.encode() + b"\r\n")
    assert [fault.severity for fault in found] == ([severity] if severity else [])
    assert all("\r" not in fault.line for fault in found)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_a_line_is_found_however_it_is_cut(noise: bytes, cuts: list[int]) -> None:
    stream = noise.replace(b"EDAC", b"") + b"\n[   12.3] EDAC MC0: 1 UE on DIMM_A1\r\n"
    matcher, found, at = HardwareMatcher(), [], 0
    for cut in [*cuts, len(stream)]:
        found += matcher.feed(stream[at : at + cut])
        at += cut
    assert "[   12.3] EDAC MC0: 1 UE on DIMM_A1" in [fault.line for fault in found]


@given(st.text(max_size=400))
def test_whatever_stands_there_is_read_without_an_error(text: str) -> None:
    for fault in (*sel_faults(text), *sensor_faults(text), *console_faults(text.encode("utf-8", "replace"))):
        assert len(fault.line) <= 200
    assert redfish_faults([(text, text), ("system", {"x": 1})]) == ()


def test_critical_faults_quarantine_and_warnings_make_suspect_and_people_are_left_alone() -> None:
    bad = Fault(source="SEL", severity=CRITICAL, line="Uncorrectable ECC")
    odd = Fault(source="sensor", severity=WARNING, line="Fan1: nc")
    verdict = hardware_failed(Health.GOOD, [odd, bad], during="3.job", by_lab=True)
    assert verdict is not None
    assert verdict.health is Health.QUARANTINED
    assert "Uncorrectable ECC" in verdict.reason
    assert verdict.evidence == {"hardware": ["sensor: Fan1: nc", "SEL: Uncorrectable ECC"], "jobs": ["3.job"]}
    suspect = hardware_failed(Health.GOOD, [odd], by_lab=True)
    assert suspect is not None
    assert suspect.health is Health.SUSPECT
    assert hardware_failed(Health.GOOD, [], by_lab=True) is None
    assert hardware_failed(Health.SUSPECT, [odd], by_lab=True) is None
    assert hardware_failed(Health.MAINTENANCE, [bad], by_lab=False) is None
    assert hardware_failed(Health.QUARANTINED, [bad], by_lab=False) is None
    assert new_faults([bad, odd], {"Fan1: nc"}) == (bad,)
