"""The trade-off and the plots, worked out by hand."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from console.report import svg
from console.report.front import Front, Value, front_of, worth_now
from console.report.sentences import worth
from console.report.words import interval, number, signed_interval
from console.sparkline import sparkline

OBJECTIVE = [
    {"component": "quality", "weight": 2.0, "scale": 1.0}, {"component": "cost", "weight": -0.1, "scale": 10_000.0},
    {"component": "latency", "weight": -0.4, "scale": 1_000_000.0},
]  # fmt: skip
TIMES = svg.Times(1_790_000_000, 30, 4)


def sums(
    arm: str, cost: float, latency: float, quality: float | None, n: int = 100, spread: float = 0.0
) -> dict[str, Any]:
    """Sums of n decisions of propensity 0.5, half of them above and half below each mean; cost in micro-USD, latency in us."""
    row: dict[str, Any] = {"arm": arm, "n": n, "weight": 2.0 * n, "weight_squares": 4.0 * n}
    for name, mean in (("cost", cost), ("latency", latency), ("quality", quality or 0.0)):
        values = mean + spread * np.array([1.0, -1.0] * (n // 2))
        row |= {
            f"{name}_sum": 2 * values.sum(),
            f"{name}_cross": 4 * values.sum(),
            f"{name}_squares": 4 * (values**2).sum(),
        }
    judged = 0.0 if quality is None else 1.0
    return row | {"quality_weight": 2.0 * n * judged, "quality_weight_squares": 4.0 * n * judged}


def front(*rows: dict[str, Any]) -> Front:
    return front_of(rows, OBJECTIVE)


def test_means_and_intervals_are_those_of_weighted_decisions() -> None:
    [point] = front(sums("a", 5000.0, 2e6, 0.5, spread=0.2)).points
    assert (point.n, point.ess) == (100, 100.0)
    assert point.quality is not None
    assert (point.cost.mean, point.latency.mean, point.quality.mean) == pytest.approx((0.005, 2.0, 0.5))
    assert point.quality.half == pytest.approx(1.96 * 0.2 / 10)
    assert point.cost.half == pytest.approx(1.96 * 0.2 / 10 * 1e-6, rel=1e-3)


def test_what_is_beaten_is_not_on_the_front_and_what_is_hardly_tried_beats_nobody() -> None:
    found = front(
        sums("cheap", 1000.0, 1e6, 0.5), sums("good", 5000.0, 2e6, 0.8), sums("fast", 6000.0, 0.5e6, 0.6),
        sums("beaten", 6000.0, 2.5e6, 0.79), sums("rare", 1.0, 1.0, 0.99, n=10), sums("unjudged", 1.0, 1.0, None),
    )  # fmt: skip
    assert [point.label for point in found.points if point.on_front] == ["cheap", "good", "fast"]
    assert [point.known for point in found.points] == [True, True, True, True, False, False]


def test_corners_say_at_which_price_an_arm_is_the_best() -> None:
    found = front(sums("a", 1000.0, 3e6, 0.5), sums("b", 3000.0, 2e6, 0.7), sums("c", 9000.0, 1e6, 0.8))
    assert [(corner.arm, corner.above, corner.below) for corner in found.by_cost] == [
        (0, pytest.approx(0.2 / 0.002), math.inf), (1, pytest.approx(0.1 / 0.006), pytest.approx(0.2 / 0.002)), (2, 0.0, pytest.approx(0.1 / 0.006)),
    ]  # fmt: skip
    for corner in found.by_cost:
        price = np.sqrt(max(corner.above, 1.0) * min(corner.below, 1e4))
        utilities = [
            point.quality.mean - price * point.cost.mean for point in found.points if point.quality is not None
        ]
        assert int(np.argmax(utilities)) == corner.arm
    assert [corner.arm for corner in found.by_latency] == [2], "the fastest is also the best"
    assert worth(0.0, math.inf, "second") == "at every price"
    assert worth(100.0, math.inf, "dollar") == "a dollar is worth more than 100 quality"


def test_todays_weights_are_put_on_the_map() -> None:
    assert worth_now(OBJECTIVE) == (pytest.approx(5.0), pytest.approx(0.2))
    assert worth_now([{"component": "quality", "weight": 0.0, "scale": 1.0}]) is None
    assert worth_now([]) is None
    found = front(sums("a", 1000.0, 1e6, 0.5), sums("b", 3000.0, 2e6, 0.9)).weights
    assert found is not None
    assert found.choice == 1, "0.4 more quality for 0.01 of cost and 0.2 of latency"
    for row in (0, 12, 23):
        for column in (0, 12, 23):
            a = 0.5 - found.cost[column] * 0.001 - found.latency[row] * 1.0
            b = 0.9 - found.cost[column] * 0.003 - found.latency[row] * 2.0
            assert found.best[row, column] == int(b > a)
    assert found.cost[0] < 5.0 < found.cost[-1]
    assert front(sums("a", 1000.0, 1e6, 0.5)).weights is None


def parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)


def test_lines_leave_gaps_and_escape_names() -> None:
    drawn = svg.lines("a <b> & c", TIMES, [svg.Line("<i>", "s0", [1.0, 2.0, None, 3.0], [0.1, 0.1, None, None])])
    root = parsed(drawn)
    assert root.get("aria-label") == "a <b> & c"
    [line] = root.findall("polyline")
    assert len((line.get("points") or "").split()) == 2
    assert len(root.findall("circle")) == 1, "a single point between gaps"
    assert len(root.findall("polygon")) == 1
    assert "<i>" in [title.text.split(": ")[1].split(" ")[0] for title in root.iter("title") if title.text]
    assert svg.lines("x", TIMES, [svg.Line("a", "s0", [None] * 4)]) == ""
    assert svg.areas("x", TIMES, [svg.Line("a", "s0", [None] * 4)]) == ""


def test_areas_fill_the_height_where_there_is_anything() -> None:
    halves = [svg.Line("a", "s0", [0.25, 0.5, None, 1.0]), svg.Line("b", "s1", [0.75, 0.5, None, 0.0])]
    root = parsed(svg.areas("x", TIMES, halves))
    polygons = root.findall("polygon")
    assert len(polygons) == 4, "two levels, two runs"
    tops = [min(float(p.split(",")[1]) for p in (polygon.get("points") or "").split()) for polygon in polygons]
    assert min(tops) == 8.0


def test_other_plots_are_drawn_whole() -> None:
    value = Value(0.5, 0.1)
    bars = parsed(
        svg.intervals("x", [svg.Bar("one", "base", value), svg.Bar("two", "s0", Value(0.9, 0.0))], " s", from_zero=True)
    )
    assert len(bars.findall("circle")) == 2
    dots = [
        svg.Dot("a", "s0", value, value, "A"),
        svg.Dot("b", "s1", Value(0.9, 0.1), Value(0.7, 0.1), "B"),
        svg.Dot("c", "base", value, value, "", hollow=True),
    ]
    points = parsed(svg.scatter("x", "cost", dots, [0, 1]))
    assert len(points.findall("polyline")) == 1
    assert next(title.text for title in points.iter("title")) == "c: 0.50 ± 0.10 at 0.50 ± 0.10", (
        "what is hardly known lies below"
    )
    found = front(sums("a", 1000.0, 1e6, 0.5), sums("b", 3000.0, 2e6, 0.9)).weights
    assert found is not None
    cells = parsed(svg.weight_map("x", found, {0: "s0", 1: "s1"}, {0: "a", 1: "b"}))
    assert {rect.get("class") for rect in cells.iter("rect")} == {"cell s0", "cell s1"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1234567.0, "1,234,567"),
        (0.00123456, "0.00123"),
        (1e-7, "1e-07"),
        (math.inf, "∞"),
        (None, "–"),
        (12.345, "12.3"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_mean_has_the_digits_that_its_interval_leaves() -> None:
    assert interval(Value(0.76312, 0.01584)) == "0.763 ± 0.016"
    assert interval(Value(0.012346, 0.000336), "USD") == "$0.01235 ± 0.00034"
    assert interval(Value(12345.6, 250.0), "s") == "12,346 ± 250 s"
    assert interval(Value(0.5, 0.0)) == "0.5 ± 0"
    assert interval(None) == "–"
    assert signed_interval(Value(-0.0506, 0.0175)) == "-0.051 ± 0.018"
    assert signed_interval(Value(0.002, 0.001), "USD") == "+$0.0020 ± 0.0010"


def test_sparklines() -> None:
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅ █"
    assert sparkline([None, None]) == "  "
    assert sparkline([3.0, 3.0]) == "▄▄"
    assert sparkline([0.5], 0.0, 1.0) == "▅"
    assert sparkline([9.0], 0.0, 1.0) == "█", "what lies beyond is drawn at the edge"
