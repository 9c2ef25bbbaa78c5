"""The trade-off between cost, latency and quality: which arms nobody beats, and which weights want which of them. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learners.knobs import hull_of
from page.store import Row

Float = NDArray[np.float64]

LEAST_ESS = 20.0
"""Effective decisions below which an arm's values are not taken for known."""

STEPS = 24
"""Weights tried along each side of the map."""
_Z = 1.96


@dataclass(frozen=True)
class Value:
    """A mean with the half width of its 95 % interval."""

    mean: float
    half: float


@dataclass(frozen=True)
class Point:
    """An arm, or a policy as a whole.

    Attributes
    ----------
    label : str
    n : int
        Decisions.
    ess : float
        What they are worth, since arms were chosen with different probabilities.
    cost, latency : Value
        Units: US dollars, seconds.
    quality : Value or None
        Unit: the metric's; None when nothing was judged.
    known : bool
        Whether there are enough decisions to compare it.
    on_front : bool
        No known arm is better in one of the three and as good in the others.
    """

    label: str
    n: int
    ess: float
    cost: Value
    latency: Value
    quality: Value | None
    known: bool
    on_front: bool = False


@dataclass(frozen=True)
class Corner:
    """An arm that some price makes the best, when quality is traded for one thing alone.

    Attributes
    ----------
    arm : int
        Index of its point.
    above, below : float
        It is best where one unit (a dollar, a second) is worth more quality than `above` and less than `below`.
    """

    arm: int
    above: float
    below: float


@dataclass(frozen=True)
class WeightMap:
    """Which arm is best at which weights.

    Attributes
    ----------
    cost, latency : float arrays (STEPS,)
        Quality that a dollar and a second are worth; logarithmic.
    best : int array (STEPS, STEPS)
        Index of the best point; rows by latency, columns by cost.
    now : (float, float) or None
        Today's weights; None when they are not known.
    choice : int or None
        The best point at today's weights.
    """

    cost: Float
    latency: Float
    best: NDArray[np.int64]
    now: tuple[float, float] | None
    choice: int | None


@dataclass(frozen=True)
class Front:
    """All of it for one policy; `by_cost` and `by_latency` are the corners, the cheapest and the fastest first."""

    points: tuple[Point, ...]
    by_cost: tuple[Corner, ...]
    by_latency: tuple[Corner, ...]
    weights: WeightMap | None


def front_of(rows: Sequence[Row], objective: Sequence[Mapping[str, object]]) -> Front:
    """Make it from the weighted sums of each arm.

    Parameters
    ----------
    rows
        Of the query of the decisions taken, one policy's.
    objective
        Terms of the newest policy, ``component``, ``weight`` and ``scale``.
    """
    points = [_point(row) for row in rows]
    beaten = {i for i in range(len(points)) if any(_beats(points[j], points[i]) for j in range(len(points)) if j != i)}
    points = [Point(**{**vars(point), "on_front": point.known and i not in beaten}) for i, point in enumerate(points)]
    known = [i for i, point in enumerate(points) if point.known]
    return Front(
        tuple(points),
        _corners(points, known, "cost"),
        _corners(points, known, "latency"),
        _map(points, known, objective),
    )


def _point(row: Row) -> Point:
    ess = row["weight"] ** 2 / row["weight_squares"] if row["weight_squares"] else 0.0
    judged = row["quality_weight"] ** 2 / row["quality_weight_squares"] if row["quality_weight_squares"] else 0.0
    cost = _value(row, "cost", row["weight"], row["weight_squares"], 1e-6)
    latency = _value(row, "latency", row["weight"], row["weight_squares"], 1e-6)
    quality = None
    if row["quality_weight"]:
        quality = _value(row, "quality", row["quality_weight"], row["quality_weight_squares"], 1.0)
    return Point(
        row["arm"], row["n"], ess, cost, latency, quality, min(ess, judged) >= LEAST_ESS and quality is not None
    )


def _value(row: Row, name: str, weight: float, squares: float, unit: float) -> Value:
    """Self-normalised mean of sums weighted by one over the propensity, and its standard error by the delta method."""
    mean = row[f"{name}_sum"] / weight
    scatter = row[f"{name}_squares"] - 2.0 * mean * row[f"{name}_cross"] + mean * mean * squares
    return Value(mean * unit, _Z * math.sqrt(max(scatter, 0.0)) / weight * unit)


def _beats(one: Point, other: Point) -> bool:
    if not one.known or not other.known:
        return False
    mine, theirs = _costs(one), _costs(other)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _costs(point: Point) -> tuple[float, float, float]:
    """What to have little of."""
    return point.cost.mean, point.latency.mean, math.inf if point.quality is None else -point.quality.mean


def _corners(points: Sequence[Point], known: Sequence[int], by: str) -> tuple[Corner, ...]:
    if not known:
        return ()
    spent = np.array([getattr(points[i], by).mean for i in known])
    quality = np.array([-_costs(points[i])[2] for i in known])
    hull = hull_of(spent, quality)
    slopes = [
        float((quality[two] - quality[one]) / (spent[two] - spent[one])) if spent[two] > spent[one] else math.inf
        for one, two in itertools.pairwise(hull)
    ]
    return tuple(
        Corner(known[at], above, below)
        for at, above, below in zip(hull, [*slopes, 0.0], [math.inf, *slopes], strict=True)
    )


def _map(points: Sequence[Point], known: Sequence[int], objective: Sequence[Mapping[str, object]]) -> WeightMap | None:
    if len(known) < 2:
        return None
    values = np.array([_costs(points[i]) for i in known])
    now = worth_now(objective)
    axes = [_axis(values, column, None if now is None else now[column]) for column in (0, 1)]
    utility = -values[:, 2] - axes[0][None, :, None] * values[:, 0] - axes[1][:, None, None] * values[:, 1]
    best = np.array(known)[utility.argmax(axis=2)]
    choice = None
    if now is not None:
        choice = known[int((-values[:, 2] - now[0] * values[:, 0] - now[1] * values[:, 1]).argmax())]
    return WeightMap(axes[0], axes[1], best, now, choice)


def _axis(values: Float, column: int, now: float | None) -> Float:
    """Weights from where the component hardly counts to where it alone does."""
    span = float(np.ptp(values[:, column])) or float(values[:, column].max()) or 1.0
    middle = max(float(np.ptp(values[:, 2])), 1e-3) / span
    low, high = middle / 30.0, middle * 30.0
    if now:
        low, high = min(low, now / 3.0), max(high, now * 3.0)
    return np.geomspace(low, high, STEPS)


def worth_now(objective: Sequence[Mapping[str, object]]) -> tuple[float, float] | None:
    """Quality that a dollar and a second are worth under a policy's objective; None when quality counts for nothing."""
    weights = {str(term["component"]): float(str(term["weight"])) / float(str(term["scale"])) for term in objective}
    quality = weights.get("quality", 0.0)
    if quality <= 0.0:
        return None
    return abs(weights.get("cost", 0.0)) / quality * 1e6, abs(weights.get("latency", 0.0)) / quality * 1e6
