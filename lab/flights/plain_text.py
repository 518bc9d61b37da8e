"""Makes the text of consoles and logs fit to be shown: terminal sequences and control characters go, words stay."""

from __future__ import annotations

import re
from typing import Final

_SEQUENCE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
)
_LINE_END: Final = re.compile(r"\r*\n|\r+")
# Also the marks that reverse the direction of text: a log must not be able to disguise itself.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OPEN_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*|[PX^_][^\x1b]*|[ -/]*)")
_LONGEST_SEQUENCE: Final = 256
_ENCODED: Final = re.compile(r"^(?:[A-Za-z0-9+/]{76}\n){3,}", re.MULTILINE)


def clean(text: str) -> str:
    """Return `text` as a terminal without colours and cursor would keep it.

    >>> clean("\\x1b[1;31m(XEN) Panic\\x1b[0m on CPU 0\\r\\n")
    '(XEN) Panic on CPU 0\\n'
    """
    return _CONTROL.sub("", _LINE_END.sub("\n", _SEQUENCE.sub("", text)))


def without_encoded(text: str) -> str:
    """Leave out blocks of base64, of which nobody reads a word, and say how long they were.

    >>> without_encoded("16384\\n" + 3 * (76 * "A" + "\\n") + "QUJD\\n-\\n")
    '16384\\n(3 lines of base64)\\nQUJD\\n-\\n'
    """
    return _ENCODED.sub(lambda block: f"({block.group().count(chr(10))} lines of base64)\n", text)


def clean_piece(data: bytes) -> tuple[str, int]:
    """Clean what can be told from `data`, and say how many of its bytes that was.

    The rest is the beginning of something whose end has not come yet (a character, a line end, a sequence): read it
    again together with what follows.
    """
    end = _safe_end(data) or len(data)
    return clean(data[:end].decode("utf-8", "replace")), end


def _safe_end(data: bytes) -> int:
    end = len(data.rstrip(b"\r"))
    escape = data.rfind(b"\x1b", max(0, end - _LONGEST_SEQUENCE), end)
    if escape >= 0 and _OPEN_SEQUENCE.fullmatch(data, escape, end):
        end = escape
    for back in range(1, min(4, end + 1)):
        byte = data[end - back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end - back if length > back else end
        if byte < 0x80:
            break
    return end
