"""Gains as SVG: a row per learner, a mark at its gain, the line over it two standard errors long to either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _LABEL, _WIDTH, _VALUE, _TOP = 22, 190, 420, 110, 52
_OURS, _THEIRS, _LINE = "#1f6f8b", "#7d868c", "#d5dadd"


@dataclass(frozen=True)
class Mark:
    """One row.

    Attributes
    ----------
    label
        At its left.
    value, error
        Where the mark is, and its standard error.
    ours
        Whether it is in our colour.
    """

    label: str
    value: float
    error: float
    ours: bool


def gain_chart(title: str, marks: Sequence[Mark], lowest: float = -1.0) -> str:
    """Return an SVG document; what lies below `lowest` is drawn at the edge, with its number.

    Raises
    ------
    ValueError
        Without marks.
    """
    if not marks:
        raise ValueError("nothing to draw")
    low = max(lowest, min(0.0, *(m.value - 2 * m.error for m in marks)))
    high = max(0.05, *(m.value + 2 * m.error for m in marks))

    def x(value: float) -> float:
        return round(_LABEL + _WIDTH * (min(max(value, low), high) - low) / (high - low), 1)

    width, height = _LABEL + _WIDTH + _VALUE, _TOP + _ROW * len(marks) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="19" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<line x1="{x(0)}" x2="{x(0)}" y1="{_TOP - 8}" y2="{height - 4}" stroke="#222222"/>',
        f'<text x="{x(0)}" y="{_TOP - 14}" text-anchor="middle">best fixed arm</text>',
    ]
    for row, mark in enumerate(marks):
        y = _TOP + row * _ROW + _ROW / 2
        colour = _OURS if mark.ours else _THEIRS
        lines += [
            f'<line x1="{_LABEL}" x2="{_LABEL + _WIDTH}" y1="{y}" y2="{y}" stroke="{_LINE}"/>',
            f'<line x1="{x(mark.value - 2 * mark.error)}" x2="{x(mark.value + 2 * mark.error)}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(mark.value)}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{_LABEL - 8}" y="{y + 4}" text-anchor="end">{escape(mark.label)}</text>',
            f'<text x="{_LABEL + _WIDTH + 8}" y="{y + 4}">{mark.value:+.3f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
