"""A line of numbers as a line of text."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], low: float | None = None, high: float | None = None) -> str:
    """Draw numbers as bars of eight heights, a space where there is none.

    Parameters
    ----------
    values
        What to draw; None where nothing is known.
    low, high
        Values of the lowest and the highest bar; of those drawn by default.
    """
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    bottom, top = min(known) if low is None else low, max(known) if high is None else high
    if top <= bottom:
        return "".join(" " if value is None else _BARS[3] for value in values)
    steps = len(_BARS) - 1

    def bar(value: float) -> str:
        return _BARS[min(max(round((value - bottom) / (top - bottom) * steps), 0), steps)]

    return "".join(" " if value is None else bar(value) for value in values)
