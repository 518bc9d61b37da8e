"""What a machine says of its own hardware: a BMC's log and sensors, machine checks on the console. Pure.

All of it is untrusted text. What is not known to be a fault is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_LONGEST: Final = 200


class Severity(StrEnum):
    """*critical*: results of this machine cannot be trusted; *warning*: it still works, and somebody should look."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, who told of it (SEL, sensor, Redfish, console), and the line that showed it."""

    source: str
    severity: Severity
    line: str


def new_faults(faults: Iterable[Fault], told: Collection[str]) -> tuple[Fault, ...]:
    """Those whose line is not in `told`: a log keeps what it says, and a repaired machine is not blamed again."""
    return tuple(fault for fault in faults if fault.line not in told)


# The words are those of ipmitool 1.8.19 for the events of IPMI 2.0, tables 42-2 and 42-3. The first that fits counts.
_EVENTS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), severity)
    for pattern, severity in (
        (r"\bnon-critical going\b|^predictive failure|^correctable ecc|^redundancy lost", Severity.WARNING),
        (r"^failure detected|^power supply ac lost|^throttled|^correctable machine check", Severity.WARNING),
        (r"\b(?:critical|non-recoverable) going\b|^uncorrectable|^ierr|^thermal trip", Severity.CRITICAL),
        (r"^bus fatal|^bus uncorrectable|^pci (?:serr|perr)|^frb[123]/", Severity.CRITICAL),
    )
)


def sel_faults(text: str) -> tuple[Fault, ...]:
    """The faults in a system event log as `ipmitool sel elist` prints it; what was deasserted since is none.

    >>> sel_faults("   1 | 11/24/2026 | 10:01:02 | Memory #0x08 | Uncorrectable ECC | Asserted\\n")[0].severity.value
    'critical'
    """
    standing: dict[tuple[str, str], Fault] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) < 6 or not re.fullmatch(r"[0-9a-fA-F]{1,4}", words[0]):
            continue
        sensor, event, direction = words[3], words[4], words[5]
        if direction == "Deasserted":
            standing.pop((sensor, event), None)
            continue
        severity = next((severity for pattern, severity in _EVENTS if pattern.search(event)), None)
        if direction == "Asserted" and severity is not None:
            shown = " | ".join(words)[:_LONGEST]
            standing[sensor, event] = Fault(source="SEL", severity=severity, line=shown)
    return tuple(standing.values())


_SENSOR_STATES: Final = {"nc": Severity.WARNING, "cr": Severity.CRITICAL, "nr": Severity.CRITICAL}


def sensor_faults(text: str) -> tuple[Fault, ...]:
    """The sensors beyond a threshold, as `ipmitool sdr elist` prints them (nc, cr, nr; ok and ns are none).

    The reading is left out of the line, so that one that moves is still the same fault.

    >>> sensor_faults("CPU Temp         | 30h | cr  |  3.1 | 101 degrees C\\n")[0].line
    'CPU Temp: cr'
    """
    faults = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) == 5 and (severity := _SENSOR_STATES.get(words[2])) is not None:
            faults.append(Fault(source="sensor", severity=severity, line=f"{words[0]}: {words[2]}"[:_LONGEST]))
    return tuple(faults)


def redfish_faults(states: Iterable[tuple[str, object]]) -> tuple[Fault, ...]:
    """The parts of a system whose `Status.Health` is neither OK nor untold.

    >>> redfish_faults([("memory", "Critical"), ("system", "OK"), ("processors", None)])[0].line
    'memory: Critical'
    """
    severities = {"Warning": Severity.WARNING, "Critical": Severity.CRITICAL}
    return tuple(
        Fault(source="Redfish", severity=severities[state], line=f"{part}: {state}")
        for part, state in states
        if isinstance(state, str) and state in severities
    )


# Anchored: a guest's own words stand behind its domain's number ("(d1) "), and must not blame the host.
_BEGIN: Final = rb"^\r?(?:\(XEN\) ?)?(?:\[[^\]\n]{1,40}\] ?){0,2}(?:\{\d{1,9}\})?"
_CONSOLE: Final = tuple(
    (re.compile(_BEGIN + pattern + rb"[^\n]*", re.MULTILINE), severity)
    for pattern, severity in (
        (rb"EDAC [^\n:]{1,40}: (?:\d+ )?UE\b", Severity.CRITICAL),
        (rb"EDAC [^\n:]{1,40}: (?:\d+ )?CE\b", Severity.WARNING),
        (rb"(?:mce: )?\[Hardware Error\]: event severity: (?:fatal|recoverable)", Severity.CRITICAL),
        (rb"(?:mce: )?\[Hardware Error\]: event severity: corrected", Severity.WARNING),
        (rb"(?:mce: )?(?:\[Hardware Error\]: )?CPU ?\d+: Machine Check Exception", Severity.CRITICAL),
        (rb"MCE: Fatal error happened on CPUs", Severity.CRITICAL),
        (rb"mce: \[Hardware Error\]: Machine check events logged", Severity.WARNING),
        (rb"(?:mce: )?CPU\d+: (?:Core|Package) temperature (?:is )?above threshold", Severity.WARNING),
    )
)


def console_faults(text: bytes) -> tuple[Fault, ...]:
    """What complete lines of a console tell of the hardware: machine checks, memory errors (EDAC, APEI), throttling.

    >>> [fault.severity.value for fault in console_faults(b"EDAC MC0: 1 CE on DIMM_A1\\n(d1) EDAC MC0: 1 UE\\n")]
    ['warning']
    """
    faults: dict[str, Fault] = {}
    for pattern, severity in _CONSOLE:
        for found in pattern.finditer(text):
            line = found.group().decode(errors="replace").strip()[:_LONGEST]
            faults.setdefault(line, Fault(source="console", severity=severity, line=line))
    return tuple(faults.values())


class HardwareMatcher:
    """Finds faults in a stream of console bytes, each line once; what is kept between reads is bounded."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> tuple[Fault, ...]:
        """The faults in the lines that `data` completes."""
        whole, end, rest = (self._kept + data).rpartition(b"\n")
        self._kept = rest[:1024]
        return console_faults(whole + end)
