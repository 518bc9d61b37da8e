"""What a failure's text says without what differs from run to run, so that the same failure is known again. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from lab.flights.plain_text import clean

LONGEST: Final = 300
"""So many characters of a failure's text count; what comes after them is output, not the message."""

# In this order: what is longer and says more comes first, and nothing that one leaves is taken by another.
_PLACES: Final = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[t ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d?:\d\d:\d\d(?:\.\d+)?\b"), "<time>"),
    (re.compile(r"(?<![\w<])/(?:[\w.+@:~-]+/)*[\w.+@:~-]+"), "<path>"),
    (re.compile(r"\b0x[0-9a-f`_]+\b"), "<hex>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\b"), "<hex>"),
    (re.compile(r"\bd(?:om)?\d+(?:v\d+)?\b"), "<dom>"),
    (re.compile(r"[-+]?\b\d+(?:[.,]\d+)*(?=(?:[kmgt]i?b|[mun]?s|%)?\b|%)"), "<n>"),
    (re.compile(r"\d+"), "<n>"),
)
_SPACE: Final = re.compile(r"\s+")


def normalise(text: str, hosts: Iterable[str] = ()) -> str:
    """The text in small letters, with placeholders for numbers, times, addresses, paths, domains and the like.

    `hosts` are the names of the lab's hosts, which are left out, too: a failure is the same wherever it is seen.
    Idempotent. At most `LONGEST` characters.

    >>> normalise("d3v0 lost 17 pages at 0xffff82d0, see /tmp/a.log (after 4.5 s)")
    '<dom> lost <n> pages at <hex>, see <path> (after <n> s)'
    >>> normalise("sabro0: no answer from pinot1", ["sabro0", "pinot1"])
    '<host>: no answer from <host>'
    """
    flat = _SPACE.sub(" ", clean(text[: 8 * LONGEST])).strip().lower()
    named = _named(hosts)
    # What is left when a placeholder has taken its place, or the text was cut, may be one more thing to replace.
    # It ends: a replacement takes digits, slashes or colons away and brings none.
    before = None
    while flat != before:
        before = flat
        if named is not None:
            flat = named.sub("<host>", flat)
        for pattern, placeholder in _PLACES:
            flat = pattern.sub(placeholder, flat)
        flat = flat[:LONGEST].rstrip()
    return flat


def _named(hosts: Iterable[str]) -> re.Pattern[str] | None:
    names = sorted({name.lower() for name in hosts if name}, key=lambda name: (-len(name), name))
    return re.compile(rf"(?<![\w<>-])(?:{'|'.join(map(re.escape, names))})(?![\w<>-])") if names else None


def signature(text: str, hosts: Iterable[str] = ()) -> str:
    """A short name (16 hex digits) of what a failure says; the same for texts that `normalise` makes equal."""
    return hashlib.sha256(normalise(text, hosts).encode()).hexdigest()[:16]
