"""Plots as inline SVG: colours come from the page's style sheet, so they follow dark and light, and no script is needed. Pure.

Every plot is drawn 360 units wide, which is what fits a phone; text that comes from data is escaped.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from console.report.front import Value, WeightMap
from console.report.words import interval, number

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 24
COLOURS = 8
"""Colours of the style sheet, classes ``s0`` to ``s7``."""


@dataclass(frozen=True)
class Line:
    """One line over time; `halves` are half widths of its band, `style` its class."""

    name: str
    style: str
    values: Sequence[float | None]
    halves: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Bar:
    """One row of an interval plot."""

    name: str
    style: str
    value: Value


@dataclass(frozen=True)
class Dot:
    """One point of a trade-off; `hollow` where it is hardly known, `whole` for a policy, `mark` is written beside it."""

    name: str
    style: str
    x: Value
    y: Value
    mark: str
    hollow: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Times:
    """Bins over time; unit: seconds since 1970, seconds."""

    first: int
    step: int
    bins: int

    def at(self, index: int) -> dt.datetime:
        """When a bin begins."""
        return dt.datetime.fromtimestamp(self.first + index * self.step, dt.UTC)

    def text(self, index: int) -> str:
        """The same in words, as short as the time allows."""
        span = self.step * self.bins
        form = "%H:%M:%S" if span <= 900 else "%H:%M" if span <= 2 * 86400 else "%m-%d"
        return f"{self.at(index):{form}}"


class _Scale:
    """Numbers to places, with round ticks; `low` and `high` are what must be seen."""

    def __init__(self, low: float, high: float, start: float, end: float, *, most: int = 5) -> None:
        if not high > low:
            pad = abs(low) * 0.1 or 0.5
            low, high = low - pad, high + pad
        step = 10.0 ** math.floor(math.log10((high - low) / most))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
        self.low, self.high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        self._start, self._end = start, end
        count = round((self.high - self.low) / step)
        self.ticks = [self.low + i * step for i in range(count + 1)]

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)


def lines(
    title: str, times: Times, drawn: Sequence[Line], *, low: float | None = None, high: float | None = None
) -> str:
    """Lines over time, with bands; None is a gap. An empty text when there is nothing to draw."""
    seen = [
        edge
        for line in drawn
        for i, value in enumerate(line.values)
        if value is not None
        for edge in (value - _half(line, i), value + _half(line, i))
    ]
    if not seen:
        return ""
    y = _Scale(min(seen) if low is None else low, max(seen) if high is None else high, HEIGHT - _BOTTOM, _TOP)
    x = _time_scale(times)
    parts = [*_frame(title, x, y, times)]
    for line in drawn:
        for run in _runs(line.values):
            if line.halves is not None and len(run) > 1:
                upper = [f"{x(i + 0.5)},{y(_known(line.values[i]) + _half(line, i))}" for i in run]
                lower = [f"{x(i + 0.5)},{y(_known(line.values[i]) - _half(line, i))}" for i in reversed(run)]
                parts.append(f'<polygon class="band {line.style}" points="{" ".join(upper + lower)}"/>')
            points = " ".join(f"{x(i + 0.5)},{y(_known(line.values[i]))}" for i in run)
            if len(run) > 1:
                parts.append(f'<polyline class="line {line.style}" points="{points}"/>')
            else:
                at = points.split(",")
                parts.append(f'<circle class="dot {line.style}" cx="{at[0]}" cy="{at[1]}" r="2"/>')
    parts += _hover(times, x, drawn)
    return _svg(title, parts)


def areas(title: str, times: Times, drawn: Sequence[Line]) -> str:
    """Shares over time, one upon the other; they add up to 1 where there is anything. An empty text without any."""
    runs = list(
        _runs([next((v for line in drawn if (v := line.values[i]) is not None), None) for i in range(times.bins)])
    )
    if not runs:
        return ""
    y, x = _Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP), _time_scale(times)
    parts = [*_frame(title, x, y, times, percent=True)]
    below = [0.0] * times.bins
    for line in drawn:
        above = [b + (value or 0.0) for b, value in zip(below, line.values, strict=True)]
        for run in runs:
            upper = [f"{x(e)},{y(above[i])}" for i in run for e in (i, i + 1)]
            lower = [f"{x(e)},{y(below[i])}" for i in reversed(run) for e in (i + 1, i)]
            parts.append(f'<polygon class="area {line.style}" points="{" ".join(upper + lower)}"/>')
        below = above
    parts += _hover(times, x, drawn, percent=True)
    return _svg(title, parts)


def intervals(title: str, bars: Sequence[Bar], unit: str, *, from_zero: bool) -> str:
    """Means with their intervals, a row each."""
    ends = [end for bar in bars for end in (bar.value.mean - bar.value.half, bar.value.mean + bar.value.half)]
    top, row = 6, 30
    height = top + row * len(bars) + 22
    x = _Scale(min(0.0, *ends) if from_zero else min(ends), max(ends), 8, WIDTH - 12, most=4)
    parts = []
    for tick in x.ticks:
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{top}" y2="{height - 20}"/>')
        anchor = "start" if x(tick) < 20 else "end" if x(tick) > WIDTH - 20 else "middle"
        parts.append(f'<text x="{x(tick)}" y="{height - 6}" text-anchor="{anchor}">{number(tick)}</text>')
    for i, bar in enumerate(bars):
        y, low, high = top + i * row + 21, x(bar.value.mean - bar.value.half), x(bar.value.mean + bar.value.half)
        said = interval(bar.value, unit)
        parts += [
            f'<text class="name" x="8" y="{y - 9}">{escape(bar.name)}: {said}</text>',
            f'<line class="whisker {bar.style}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot {bar.style}" cx="{x(bar.value.mean)}" cy="{y}" r="4.5"/>',
        ]
    return _svg(title, parts, height)


def scatter(title: str, across: str, dots: Sequence[Dot], front: Sequence[int]) -> str:
    """What is spent against quality, both with intervals; `front` are the dots that the line joins, from the left."""
    height = 240
    # Whiskers of what is hardly known must not set the scale.
    firm = [dot for dot in dots if not dot.hollow] or list(dots)
    xs = [edge for d in firm for edge in (d.x.mean - d.x.half, d.x.mean + d.x.half)] + [d.x.mean for d in dots]
    ys = [edge for d in firm for edge in (d.y.mean - d.y.half, d.y.mean + d.y.half)] + [d.y.mean for d in dots]
    x, y = _Scale(max(min(xs), 0.0), max(xs), _LEFT, WIDTH - _RIGHT), _Scale(min(ys), max(ys), height - 36, _TOP)
    parts = []
    for tick in y.ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y(tick) + 4}" text-anchor="end">{number(tick)}</text>')
    for tick in x.ticks:
        anchor = "end" if x(tick) > WIDTH - 20 else "middle"
        parts.append(f'<text x="{x(tick)}" y="{height - 22}" text-anchor="{anchor}">{number(tick)}</text>')
    parts.append(
        f'<text class="name" x="{(WIDTH + _LEFT) / 2}" y="{height - 5}" text-anchor="middle">{escape(across)}</text>'
    )
    if len(front) > 1:
        joined = " ".join(f"{x(dots[i].x.mean)},{y(dots[i].y.mean)}" for i in front)
        parts.append(f'<polyline class="front" points="{joined}"/>')
    for dot in sorted(dots, key=lambda dot: not dot.hollow):
        cx, cy = x(dot.x.mean), y(dot.y.mean)
        said = f"{dot.name}: {interval(dot.y)} at {interval(dot.x)}"
        parts.append("<g>")
        if not dot.hollow:
            parts += [
                f'<line class="whisker thin {dot.style}" x1="{x(dot.x.mean - dot.x.half)}" x2="{x(dot.x.mean + dot.x.half)}" y1="{cy}" y2="{cy}"/>',
                f'<line class="whisker thin {dot.style}" x1="{cx}" x2="{cx}" y1="{y(dot.y.mean - dot.y.half)}" y2="{y(dot.y.mean + dot.y.half)}"/>',
            ]
        if dot.whole:
            parts.append(f'<rect class="dot {dot.style}" x="{cx - 4.5:.1f}" y="{cy - 4.5:.1f}" width="9" height="9"/>')
        else:
            parts.append(f'<circle class="{"hollow" if dot.hollow else "dot"} {dot.style}" cx="{cx}" cy="{cy}" r="5"/>')
        if dot.mark:
            right, up = cx < WIDTH - 60, not dot.whole
            parts.append(
                f'<text class="mark" x="{cx + (8 if right else -8):.1f}" y="{cy + (-6 if up else 16):.1f}" '
                f'text-anchor="{"start" if right else "end"}">{escape(dot.mark)}</text>'
            )
        parts.append(f"<title>{escape(said)}</title></g>")
    return _svg(title, parts, height)


def weight_map(title: str, found: WeightMap, style_of: dict[int, str], name_of: dict[int, str]) -> str:
    """Which point is best at which worth of a dollar and of a second."""
    height = 240
    bottom, columns, rows = height - 36, len(found.cost), len(found.latency)
    wide, tall = (WIDTH - _LEFT - _RIGHT) / columns, (bottom - _TOP) / rows
    parts = ['<g class="cells">']
    for row in range(rows):
        column = 0
        while column < columns:
            best, end = int(found.best[row, column]), column
            while end < columns and int(found.best[row, end]) == best:
                end += 1
            parts.append(
                f'<rect class="cell {style_of[best]}" x="{_LEFT + column * wide:.1f}" y="{bottom - (row + 1) * tall:.1f}" '
                f'width="{(end - column) * wide + 0.4:.1f}" height="{tall + 0.4:.1f}"><title>{escape(name_of[best])}</title></rect>'
            )
            column = end
    parts.append("</g>")
    for i in (0, columns // 2, columns - 1):
        anchor = "start" if i == 0 else "end" if i == columns - 1 else "middle"
        parts.append(
            f'<text x="{_LEFT + (i + 0.5) * wide:.1f}" y="{height - 22}" text-anchor="{anchor}">{_short(found.cost[i])}</text>'
        )
    for i in (0, rows // 2, rows - 1):
        parts.append(
            f'<text x="{_LEFT - 5}" y="{bottom - (i + 0.5) * tall + 4:.1f}" text-anchor="end">{_short(found.latency[i])}</text>'
        )
    parts.append(
        f'<text class="name" x="{(WIDTH + _LEFT) / 2}" y="{height - 5}" text-anchor="middle">quality that a dollar is worth</text>'
    )
    if found.now is not None and found.now[0] > 0 and found.now[1] > 0:
        x = _LEFT + wide * (0.5 + _place(found.now[0], list(found.cost)))
        y = bottom - tall * (0.5 + _place(found.now[1], list(found.latency)))
        parts.append(f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>today\'s weights</title></circle>')
    return _svg(title, parts, height)


def _short(value: float) -> str:
    return number(float(f"{value:.2g}"))


def _place(value: float, axis: Sequence[float]) -> float:
    step = math.log(axis[1] / axis[0])
    return min(max(math.log(value / axis[0]) / step, 0.0), len(axis) - 1.0)


def _time_scale(times: Times) -> _Scale:
    scale = _Scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    scale.low, scale.high = 0.0, float(times.bins)
    return scale


def _frame(title: str, x: _Scale, y: _Scale, times: Times, *, percent: bool = False) -> Iterator[str]:
    for tick in y.ticks:
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>'
        said = f"{tick:.0%}" if percent else number(tick)
        yield f'<text x="{_LEFT - 5}" y="{y(tick) + 4}" text-anchor="end">{said}</text>'
    for index, anchor in ((0, "start"), (times.bins // 2, "middle"), (times.bins, "end")):
        yield f'<text x="{x(index)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{times.text(index)}</text>'


def _hover(times: Times, x: _Scale, drawn: Sequence[Line], *, percent: bool = False) -> Iterator[str]:
    """What a pointer is told, bin by bin."""
    wide = x(1) - x(0)
    for i in range(times.bins):
        said = [
            f"{line.name} {f'{value:.0%}' if percent else number(value)}"
            for line in drawn
            if (value := line.values[i]) is not None
        ]
        if said:
            text = escape(f"{times.text(i)} UTC: {', '.join(said)}")
            yield f'<rect class="hover" x="{x(i)}" y="{_TOP}" width="{wide:.1f}" height="{HEIGHT - _TOP - _BOTTOM}"><title>{text}</title></rect>'


def _runs(values: Sequence[float | None]) -> Iterator[list[int]]:
    """Places of values without a gap between them."""
    run: list[int] = []
    for i, value in enumerate(values):
        if value is None:
            if run:
                yield run
            run = []
        else:
            run.append(i)
    if run:
        yield run


def _half(line: Line, at: int) -> float:
    return 0.0 if line.halves is None else line.halves[at] or 0.0


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def _svg(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{inside}</svg>'
