"""The picture of `lab simulate`: how long tenants wait and how busy hosts are, a bar for each variant (SVG)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from lab.flights.plain_text import clean
from lab.services.simulate import Measured, compared

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's, which colour-blind people can tell apart."""

_TENANTS = 14
_LEFT, _PLOT, _RIGHT = 190, 620, 110
_BAR, _GAP = 9, 14
_TALL = 14
"""A bar beside which something is written."""
_WIDTH = _LEFT + _PLOT + _RIGHT

_STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1c2024 }
  .title { font-size: 17px; font-weight: 600 } .head { font-weight: 600 } .dim { fill: #60646c; font-size: 11.5px }
  .end { text-anchor: end } .mid { text-anchor: middle } .grid { stroke: #d9dce1 } .axis { stroke: #8b8f98 }
  .ground { fill: #fff }
  @media (prefers-color-scheme: dark) {
    text { fill: #edeef0 } .dim { fill: #a0a4ab } .grid { stroke: #363a42 } .axis { stroke: #777b84 }
    .ground { fill: #16181c }
  }
"""


def picture(measured: Sequence[Measured]) -> str:
    """All variants side by side, as an SVG document."""
    parts = list(_parts(measured))
    height = parts[-1]
    body = "\n".join(str(part) for part in parts[:-1])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="Waits of tenants and use of hosts">\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>\n{body}\n</svg>\n'
    )


def _parts(measured: Sequence[Measured]) -> Iterator[str | int]:
    y = 34.0
    yield _text(20, y, "Waits and use of hosts, simulated", "title")
    y += 26
    for number, one in enumerate(measured):
        summary = one.summary
        yield f'<rect x="20" y="{y - 10}" width="14" height="{_BAR + 2}" rx="2" fill="{_colour(number)}"/>'
        yield _text(42, y, one.what, "head" if number == 0 else "")
        told = f"all done after {_hours(summary.makespan)}, {summary.ratio:.3f} times the least possible"
        yield _text(_WIDTH - 20, y, told, "dim end")
        y += 22
    y += 22

    tenants = compared(measured)
    more = f" (those of {_TENANTS} of {len(tenants)}, the longest)" if len(tenants) > _TENANTS else ""
    yield _text(20, y, f"How long the jobs of each tenant wait{more}", "head")
    yield _text(_WIDTH - 20, y, "bar: half of them · pale: nine in ten · line: the longest wait", "dim end")
    longest = max((one.summary.waits.longest for one in measured), default=0.0)
    step, unit, name = _scale(longest)
    most = max(step, math.ceil(longest / step) * step)
    y += 18
    rows = tenants[:_TENANTS]
    bottom = y + len(rows) * (len(measured) * _BAR + _GAP)
    yield from _grid(y, bottom, most, step, lambda value: f"{value / unit:g}")
    yield _text(_LEFT + _PLOT + 14, bottom + 18, name, "dim")
    for tenant in rows:
        y += _GAP / 2
        yield _label(tenant, y + len(measured) * _BAR / 2)
        for number, one in enumerate(measured):
            waits = one.summary.tenants.get(tenant)
            if waits is not None:
                yield _bar(y, waits.p90 / most, number, opacity=0.45)
                yield _bar(y, waits.p50 / most, number)
                yield _whisker(y, waits.p90 / most, waits.longest / most, number)
            y += _BAR
        y += _GAP / 2
    y = bottom + 58

    yield _text(20, y, "How busy the hosts are until all is done", "head")
    y += 18
    classes = sorted({name for one in measured for name in one.summary.classes})
    bottom = y + len(classes) * (len(measured) * _TALL + _GAP)
    yield from _grid(y, bottom, 1.0, 0.25, lambda value: f"{value:.0%}")
    for name in classes:
        y += _GAP / 2
        yield _label(name, y + len(measured) * _TALL / 2)
        for number, one in enumerate(measured):
            use = one.summary.classes.get(name)
            if use is not None:
                yield _bar(y, use.busy, number, height=_TALL)
                yield _text(_LEFT + _PLOT + 8, y + _TALL - 3, f"{use.busy:.0%} of {use.hosts}", "dim")
            y += _TALL
        y += _GAP / 2
    yield round(bottom + 40)


def _grid(top: float, bottom: float, most: float, step: float, told: Callable[[float], str]) -> Iterator[str]:
    for number in range(round(most / step) + 1):
        x = _LEFT + _PLOT * number * step / most
        kind = "axis" if number == 0 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>'
        yield _text(x, bottom + 18, told(number * step), "dim mid")


def _scale(longest: float) -> tuple[float, float, str]:
    """The distance of the lines and the unit, both in seconds, and what the unit is called."""
    unit, name = (3600.0, "hours") if longest >= 2 * 3600 else (60.0, "minutes") if longest >= 120 else (1.0, "seconds")
    wanted = max(longest, unit) / unit / 6
    power = 10 ** math.floor(math.log10(wanted))
    nice = next(size * power for size in (1, 2, 5, 10) if size * power >= wanted)
    return nice * unit, unit, name


def _bar(y: float, part: float, number: int, *, opacity: float = 1.0, height: float = _BAR) -> str:
    width = max(0.0, min(1.0, part)) * _PLOT
    return (
        f'<rect x="{_LEFT}" y="{y + 1:.1f}" width="{width:.1f}" height="{height - 2}" rx="1.5" '
        f'fill="{_colour(number)}" fill-opacity="{opacity}"/>'
    )


def _whisker(y: float, start: float, end: float, number: int) -> str:
    first, last, middle = _LEFT + start * _PLOT, _LEFT + min(1.0, end) * _PLOT, y + _BAR / 2
    return (
        f'<path d="M{first:.1f} {middle:.1f}H{last:.1f}M{last:.1f} {middle - 3:.1f}v6" fill="none" '
        f'stroke="{_colour(number)}" stroke-width="1.5"/>'
    )


def _label(text: str, middle: float) -> str:
    return _text(_LEFT - 10, middle + 4, text, "end")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    told = clean(text)
    told = told if len(told) <= 90 else told[:89] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(told)}</text>'


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
