"""Figures on a page beside those in ``benchmarks/results``: what a page says of a result, and whether it is that of today."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"(\d[\d,]*(?:\.\d+)?)"


@cache
def results(name: str) -> dict[str, Any]:
    """A file of results."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found


def figure(name: str, system: str, metric: str) -> dict[str, Any]:
    """The one figure of a file with this system and metric."""
    (found,) = (f for f in results(name)["figures"] if (f["system"], f["metric"]) == (system, metric))
    return dict(found)


def median(name: str, system: str, metric: str) -> float:
    """Its median."""
    return float(figure(name, system, metric)["median"])


def cpu(name: str, system: str, metric: str) -> float:
    """CPU of it; unit: microseconds an event."""
    return float(figure(name, system, metric)["cpu_us_per_event"])


@cache
def words(page: str) -> str:
    """A page as one line."""
    return " ".join((ROOT / "docs" / page).read_text().split())


def shown(page: str, passage: str) -> list[str]:
    """The numbers that a page has where a passage, which it has once, has ``#``."""
    (found,) = re.finditer(re.escape(passage).replace(r"\#", NUMBER), words(page))
    return list(found.groups())


def agrees(text: str, value: float) -> bool:
    """Whether a number as written is a value rounded to the digits that are written.

    >>> agrees("54,800", 54_842.0), agrees("54,800", 54_900.0), agrees("7.0", 6.95), agrees("7.0", 7.06), agrees("30", 34.0)
    (True, False, True, False, False)
    """
    digits = text.replace(",", "")
    whole, _, decimals = digits.partition(".")
    # Zeros at the end of what has thousands are places, not digits.
    zeros = len(whole) - len(whole.rstrip("0")) if not decimals and len(whole) > 3 else 0
    step = 10.0 ** (zeros - len(decimals))
    return abs(float(digits) - value) <= step / 2 * (1 + 1e-9)
