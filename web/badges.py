"""Badges: a small picture with two words, to be put on pages elsewhere. No script, nothing loaded, all text escaped."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

_WIDE: Final = frozenset("mwMW@%")
_NARROW: Final = frozenset("fijlrtI1.,:;|'() -")

COLOURS: Final = {
    "open": "#0b7157",
    "held": "#b5330a",
    "stopped": "#725600",
    "broken": "#75399b",
    "testing": "#0b5cad",
    "untested": "#5b6777",
    "unknown": "#5b6777",
    "tested": "#16324f",
}
"""White text on each has a contrast of at least 4.5; the word says the same as the colour."""


def _width(text: str) -> int:
    """How wide a text is in 11 px Verdana, in pixels, roughly; it is stretched to that."""
    return round(sum(9.5 if letter in _WIDE else 4.2 if letter in _NARROW else 7.0 for letter in text))


def _plain(text: str) -> str:
    """Only what is printable: XML knows no control characters, however they are written."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def badge(label: str, value: str, kind: str) -> str:
    """An SVG that says `value` about `label`, in the colour of `kind`. Both are cut after 64 letters."""
    label, value = (_plain(text if len(text) <= 64 else f"{text[:63]}…") for text in (label, value))
    left, right = _width(label) + 12, _width(value) + 12
    told = escape(f"{label}: {value}", {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{told}">'
        f"<title>{told}</title>"
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#39424e"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{COLOURS[kind]}"/></g>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="6" y="14" textLength="{left - 12}">{escape(label)}</text>'
        f'<text x="{left + 6}" y="14" textLength="{right - 12}">{escape(value)}</text></g></svg>'
    )
