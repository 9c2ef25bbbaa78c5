"""What a policy says about single levels, and the trade-offs between its arms. Pure: from a snapshot and a context."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.arms import level_text
from steersman.held import Held
from steersman.scoring import Components

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LevelReport:
    """One level of a knob, all other knobs being as they come.

    Attributes
    ----------
    knob, level : str
    share : float
        Probability of an arm with the level.
    utility, quality, cost, latency : float
        How much more its arms are expected to make than the knob's levels in the mean: utility; the metric's unit;
        millionths of a US dollar; microseconds.
    """

    knob: str
    level: str
    share: float
    utility: float
    quality: float
    cost: float
    latency: float


def level_reports(held: Held, x: NDArray[np.floating]) -> list[LevelReport]:
    """Shares and effects of all levels in a context (d,)."""
    arms = held.snapshot.arms
    scores, expected = held.scorer.score(x), held.scorer.components(x)
    values = np.stack([scores.utility, expected.quality, expected.cost, expected.latency])
    reports = []
    for k, (knob, levels) in enumerate(arms.knobs.items()):
        of_level = [arms.levels[:, k] == i for i in range(len(levels))]
        means = np.stack([values[:, mask].mean(axis=1) if mask.any() else np.zeros(4) for mask in of_level])
        effects = means - means[[bool(mask.any()) for mask in of_level]].mean(axis=0)
        for level, mask, effect in zip(levels, of_level, effects, strict=True):
            if mask.any():
                share = float(scores.propensity[mask].sum())
                reports.append(LevelReport(knob, level_text(level), share, *map(float, effect)))
    return reports


@dataclass(frozen=True)
class FrontArm:
    """An arm, and whether any mixture of others is as good for less.

    Attributes
    ----------
    arm : str
    probability : float
    quality, cost, latency : float
        Expected; units: the metric's, millionths of a US dollar, microseconds.
    on_front : bool
    worth : float or None
        On the front: quality gained per unit spent since the arm before it; None for the cheapest and off the front.
    """

    arm: str
    probability: float
    quality: float
    cost: float
    latency: float
    on_front: bool
    worth: float | None


def front(held: Held, x: NDArray[np.floating], by: str = "cost") -> list[FrontArm]:
    """All arms by what they spend, with the Pareto front of their mixtures.

    Parameters
    ----------
    held : Held
    x : float array (d,)
    by : str
        ``cost``, ``latency`` or ``failures``: what is traded for quality.
    """
    scores, expected = held.scorer.score(x), held.scorer.components(x)
    spent = np.maximum(getattr(expected, by), 0.0)
    hull = hull_of(spent, expected.quality)
    worth: dict[int, float | None] = {}
    for before, arm in zip([None, *hull], hull, strict=False):
        rise = None if before is None else float(spent[arm] - spent[before])
        worth[arm] = (
            None if before is None or not rise else float(expected.quality[arm] - expected.quality[before]) / rise
        )
    return [
        _front_arm(held, int(a), scores.propensity, expected, worth) for a in np.lexsort((-expected.quality, spent))
    ]


def _front_arm(held: Held, a: int, propensity: Float, expected: Components, worth: dict[int, float | None]) -> FrontArm:
    return FrontArm(
        held.snapshot.arms.labels[a],
        float(propensity[a]),
        float(expected.quality[a]),
        float(expected.cost[a]),
        float(expected.latency[a]),
        a in worth,
        worth.get(a),
    )


def hull_of(spent: Float, quality: Float) -> list[int]:
    """Indices, cheapest first, of the corners of the upper concave hull: what mixtures cannot beat (A. M. Andrew, 1979)."""
    hull: list[int] = []
    for a in np.lexsort((-quality, spent)).tolist():
        if hull and quality[a] <= quality[hull[-1]]:
            continue
        while len(hull) > 1:
            one, two = hull[-2], hull[-1]
            rise = (quality[two] - quality[one]) * (spent[a] - spent[one])
            if rise > (quality[a] - quality[one]) * (spent[two] - spent[one]):
                break
            hull.pop()
        hull.append(a)
    return hull


def mixture(spent: Float, quality: Float, ceiling: float) -> list[tuple[int, float]]:
    """The best fixed mixture whose mean spending is at most `ceiling`: one or two arms with their shares.

    Raises
    ------
    ValueError
        When even the cheapest arm spends more.
    """
    hull = hull_of(spent, quality)
    if spent[hull[0]] > ceiling:
        raise ValueError(f"even the cheapest arm spends {spent[hull[0]]:g}, more than {ceiling:g}")
    for one, two in itertools.pairwise(hull):
        if spent[one] <= ceiling < spent[two]:
            share = float((spent[two] - ceiling) / (spent[two] - spent[one]))
            return [(one, share), (two, 1.0 - share)]
    return [(hull[-1], 1.0)]
