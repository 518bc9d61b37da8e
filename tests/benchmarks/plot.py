"""Lines over two logarithmic axes, as an SVG document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LEFT, _TOP, _WIDE, _HIGH = 70, 60, 520, 260
_COLOURS = ("#0072b2", "#d55e00")
_STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1c2024 } .title { font-size: 15px; font-weight: 600 }
  .mid { text-anchor: middle } .end { text-anchor: end } .grid { stroke: #d9dce1 } .ground { fill: #fff }
  .limit { stroke: #60646c; stroke-dasharray: 5 4 }
  @media (prefers-color-scheme: dark) { text { fill: #edeef0 } .grid { stroke: #363a42 } .ground { fill: #16181c } }
"""


def plot(
    title: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]], x_unit: str, y_unit: str, *, limit: float
) -> str:
    """One line for each of `lines` (its name and its values at `xs`), and a dashed one at `limit`."""
    low = math.floor(math.log10(min(min(ys) for ys in lines.values())))
    high = math.ceil(math.log10(max(limit, *(max(ys) for ys in lines.values()))))

    def x_at(value: float) -> float:
        return (
            _LEFT
            + 40
            + (math.log10(value) - math.log10(xs[0])) / (math.log10(xs[-1]) - math.log10(xs[0])) * (_WIDE - 60)
        )

    def y_at(value: float) -> float:
        return _TOP + _HIGH - (math.log10(value) - low) / (high - low) * _HIGH

    parts = [f'<text x="16" y="30" class="title">{title}</text>']
    for power in range(low, high + 1):
        y = y_at(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDE}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" class="end">{10.0**power:g} {y_unit}</text>')
    bottom = _TOP + _HIGH + 24
    parts += [f'<text x="{x_at(value):.1f}" y="{bottom}" class="mid">{value:,} {x_unit}</text>' for value in xs]
    y = y_at(limit)
    parts.append(f'<line class="limit" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDE}" y2="{y:.1f}"/>')
    parts.append(f'<text x="{_LEFT + _WIDE + 8}" y="{y + 4:.1f}">at most {limit:g} {y_unit}</text>')
    for (name, ys), colour in zip(lines.items(), _COLOURS, strict=False):
        points = " ".join(f"{x_at(x):.1f},{y_at(value):.1f}" for x, value in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, value in zip(xs, ys, strict=True):
            parts.append(f'<circle cx="{x_at(x):.1f}" cy="{y_at(value):.1f}" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{x_at(x):.1f}" y="{y_at(value) - 10:.1f}" class="mid">{value:.2g}</text>')
        parts.append(f'<text x="{_LEFT + _WIDE + 8}" y="{y_at(ys[-1]) + 4:.1f}">{name}</text>')
    size = f'width="{_LEFT + _WIDE + 120}" height="{_TOP + _HIGH + 44}"'
    ground = f'<rect class="ground" {size}/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{ground}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
