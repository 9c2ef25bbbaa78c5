"""Numbers as people read them. Pure."""

from __future__ import annotations

import datetime as dt
import math

from console.report.front import Value


def number(value: float | None) -> str:
    """Three digits, or whole thousands with their separators; a dash for nothing."""
    if value is None:
        return "–"
    if value == float("inf"):
        return "∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    if "e" in text:
        return text if abs(value) < 1e-4 else f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0") else text


def with_unit(value: float | None, unit: str) -> str:
    """The same with its unit."""
    if value is None:
        return "–"
    return f"${number(value)}" if unit == "USD" else f"{number(value)}{f' {unit}' if unit else ''}"


def interval(value: Value | None, unit: str = "") -> str:
    """Mean and half width of its interval, both to the digits that the half width leaves."""
    if value is None:
        return "–"
    mean, half = _matched(value.mean, value.half)
    return f"${mean} ± {half}" if unit == "USD" else f"{mean} ± {half}{f' {unit}' if unit else ''}"


def signed_interval(value: Value, unit: str = "") -> str:
    """The same of a difference, with its sign."""
    sign = "+" if value.mean > 0 else "-" if value.mean < 0 else ""
    return sign + interval(Value(abs(value.mean), value.half), unit)


def _matched(mean: float, half: float) -> tuple[str, str]:
    """Both with two digits of the half width, as far as eight decimals; a mean without scatter with three digits."""
    if not 0.0 < half < float("inf"):
        return number(mean), number(half)
    decimals = min(max(1 - math.floor(math.log10(half)), 0), 8)
    return f"{mean:,.{decimals}f}", f"{half:,.{decimals}f}"


def share(value: float | None, *, signed: bool = False) -> str:
    """A share in per cent."""
    if value is None:
        return "–"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def when(at: dt.datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
