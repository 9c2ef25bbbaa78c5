"""Bar charts as SVG, written by hand: no plotting library is worth a dependency here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _BAR, _LABEL, _WIDTH, _VALUE = 26, 16, 330, 380, 150
_TOP = 30
_OURS, _THEIRS = "#1f6f8b", "#b0b7bd"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    label
        At its left.
    value, low, high
        Its length, and the ends of the line over it that shows the spread.
    text
        At its right.
    ours
        Whether it is in our colour.
    """

    label: str
    value: float
    low: float
    high: float
    text: str
    ours: bool = True


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Return an SVG document with one horizontal bar a row, all to the same scale, which begins at 0.

    Raises
    ------
    ValueError
        Without bars.
    """
    if not bars:
        raise ValueError("nothing to draw")
    longest = max(max(bar.value, bar.high) for bar in bars) or 1.0
    width, height = _LABEL + _WIDTH + _VALUE, _TOP + _ROW * len(bars) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="19" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for row, bar in enumerate(bars):
        top = _TOP + row * _ROW
        middle, text_y = top + _BAR / 2, top + 12
        length, low, high = (round(_WIDTH * x / longest, 1) for x in (bar.value, bar.low, bar.high))
        lines += [
            f'<text x="{_LABEL - 8}" y="{text_y}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LABEL}" y="{top}" width="{length}" height="{_BAR}" fill="{_OURS if bar.ours else _THEIRS}"/>',
            f'<line x1="{_LABEL + low}" x2="{_LABEL + high}" y1="{middle}" y2="{middle}" stroke="#222222"/>',
            f'<text x="{_LABEL + max(length, high) + 6}" y="{text_y}">{escape(bar.text)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
