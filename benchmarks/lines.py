"""Line charts as SVG, written by hand: no plotting library is worth a dependency here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _TOP, _WIDTH, _HEIGHT, _LEGEND = 64, 40, 560, 300, 250
_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7b5ea7", "#b8860b", "#2f4858", "#d081a6", "#6b705c")
_GRID = "#d5dadd"


@dataclass(frozen=True)
class Line:
    """One line: its name, with what is worth saying beside it, and its points in order of `x`."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(title: str, across: str, up: str, lines: Sequence[Line], shaded: float = 0.0) -> str:
    """Return an SVG document; both axes begin at 0.

    Parameters
    ----------
    title, across, up
        What it shows, and the names of the axes with their units.
    lines
        At least one, each with at least one point.
    shaded
        What lies left of this `x` is shaded.

    Raises
    ------
    ValueError
        When there is nothing to draw.
    """
    if not lines or not all(len(line.x) for line in lines):
        raise ValueError("nothing to draw")
    right = max(max(line.x) for line in lines) or 1.0
    top = 1.1 * max(max(line.y) for line in lines) or 1.0

    def x(value: float) -> float:
        return round(_LEFT + _WIDTH * value / right, 1)

    def y(value: float) -> float:
        return round(_TOP + _HEIGHT * (1 - value / top), 1)

    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + 44
    bottom = _TOP + _HEIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="19" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{_LEFT}" y="{_TOP}" width="{round(x(shaded) - _LEFT, 1)}" height="{_HEIGHT}" fill="#f0f2f4"/>',
    ]
    for step in range(5):
        value = top * step / 4
        out += [
            f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(value)}" y2="{y(value)}" stroke="{_GRID}"/>',
            f'<text x="{_LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{value:,.0f}</text>',
            f'<text x="{x(right * step / 4)}" y="{bottom + 16}" text-anchor="middle">{right * step / 4:.3g}</text>',
        ]
    out += [
        f'<text x="{_LEFT + _WIDTH / 2}" y="{bottom + 36}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="{_LEFT}" y="{_TOP - 6}">{escape(up)}</text>',
    ]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(line.x, line.y, strict=True))
        key = _TOP + 12 + 20 * number
        out += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<rect x="{_LEFT + _WIDTH + 14}" y="{key - 8}" width="10" height="10" fill="{colour}"/>',
            f'<text x="{_LEFT + _WIDTH + 30}" y="{key + 1}">{escape(line.label)}</text>',
        ]
    return "\n".join([*out, "</svg>"]) + "\n"
