"""What a serial console tells of a host's health: signs that a wait has become pointless. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A sign found on a console: what it means, and the line that showed it (untrusted)."""

    name: str
    line: str


# A bounded look back is kept between chunks, so that a line cut in two by a read is still found.
_OVERLAP: Final = 512

_FATAL: Final = (
    ("Xen panic", re.compile(rb"^.*(?:Panic on CPU \d+|Xen BUG at |FATAL TRAP: ).*$", re.MULTILINE)),
    ("Xen watchdog", re.compile(rb"^.*Watchdog timer (?:fired|detects that CPU).*$", re.MULTILINE)),
    ("dom0 kernel panic", re.compile(rb"^.*Kernel panic - not syncing.*$", re.MULTILINE)),
    ("dom0 crashed", re.compile(rb"^.*Hardware Dom0 (?:crashed|halted|shutdown).*$", re.MULTILINE)),
)


def panic_reason(text: str) -> str:
    """The line after the last `Panic on CPU` of Xen, which names the cause; empty when there is none (yet).

    >>> panic_reason("(XEN) Panic on CPU 0:\\n(XEN) FATAL TRAP: vec 2, NMI[0000]\\n")
    'FATAL TRAP: vec 2, NMI[0000]'
    """
    found = re.findall(r"Panic on CPU \d+:[^\n]*\n\(XEN\)(?: \[[^\]]*\])? ([^\n]+)\n", text)
    return str(found[-1]).strip()[:_OVERLAP] if found else ""


class FatalMatcher:
    """Looks for fatal symptoms in a stream of console bytes; work and memory per byte are bounded."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Symptom | None:
        """The first fatal symptom that `data` completes, or None."""
        text = self._kept + data
        self._kept = text[-_OVERLAP:]
        for name, pattern in _FATAL:
            if found := pattern.search(text):
                self._kept = text[found.end() :][-_OVERLAP:]
                return Symptom(name=name, line=found.group().decode(errors="replace").strip()[:_OVERLAP])
        return None
