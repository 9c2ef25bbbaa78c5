"""docs/capacity.md reckons memory from what was measured, and its examples from its formula."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "capacity.md").read_text()
HOUR_S, WAIT_S = 3600, 35
EVENTS = 10
"""Events of a trace in the page's examples."""


def number(pattern: str) -> float:
    """Return the one number that a pattern finds on the page."""
    (found,) = re.findall(pattern, PAGE)
    return float(found.replace(",", ""))


BASE_MB = number(r"memory\(worker\)  =  ([\d,]+) MB")
CLOSED = number(r"horizon x ([\d,]+) bytes \+ 35 s x [\d,]+ bytes\)")
WAITING = number(r"horizon x [\d,]+ bytes \+ 35 s x ([\d,]+) bytes\)")


def test_the_formula_has_the_measured_bytes() -> None:
    figures = json.loads((ROOT / "benchmarks" / "results" / "traces.json").read_text())["figures"]
    measured = {figure["system"]: figure["median"] for figure in figures if figure["metric"] == "memory per trace"}
    assert pytest.approx(measured.pop("columns, 300,000 closed traces remembered"), rel=0.02) == CLOSED
    assert measured
    for system, trace in measured.items():
        assert pytest.approx(trace, rel=0.02) == WAITING, system


def test_the_text_has_the_bytes_of_the_formula() -> None:
    assert number(r"A trace that waits takes ([\d.]+) KB") == WAITING / 1000
    assert number(r"one that has ended ([\d,]+) bytes") == CLOSED
    assert number(r"\(horizon x ([\d,]+) bytes \+ 35 s x [\d.]+ KB\)") == CLOSED
    assert number(r"\(horizon x [\d,]+ bytes \+ 35 s x ([\d.]+) KB\)") == WAITING / 1000


def test_the_examples_follow_the_formula() -> None:
    def trace(horizon_s: float) -> float:
        return horizon_s * CLOSED + WAIT_S * WAITING

    traces = 5_000 / EVENTS
    assert number(r"the ended ones are\n([\d,]+) MB after an hour") == round(traces * HOUR_S * CLOSED / 1e6)
    most = number(r"reached at about ([\d,]+) events/s a worker")
    assert pytest.approx((2000 - BASE_MB) * 1e6 / trace(HOUR_S) * EVENTS, rel=0.01) == most
    assert number(r"where the formula gives ([\d,]+) \(300 s of horizon\)") == round(
        BASE_MB + traces * trace(300) / 1e6
    )
    assert number(r"([\d,]+) GB in all at an hour") == round(100_000 * trace(HOUR_S) / 1e9)
    assert number(r"([\d,]+) GB at ten minutes") == round(100_000 * trace(600) / 1e9)
