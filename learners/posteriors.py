"""From the sums of a policy to what is believed of its heads."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace
from steersman.layout import Layout

from .gram import assemble
from .moments import Moments
from .odds import SURE, Odds, Seen
from .priors import NOISE, NOISE_N, worth
from .regression import Posterior, evidence, solve

Float = NDArray[np.float64]


def posteriors(
    moments: Moments,
    layout: Layout,
    arms: ArmSpace,
    precisions: tuple[Float, Float],
    factors: Float,
    most: float,
    odds: Odds | None = None,
) -> tuple[Posterior, Posterior]:
    """Return the posterior of the quality head, and of cost, latency and failures (three columns, in scales).

    Parameters
    ----------
    moments
        What was seen of each arm.
    layout
        Of the heads: columns of peers before those of x.
    arms
        The arms, in the order of the moments.
    precisions
        Prior precisions of the quality head and of the others, (D,) each.
    factors
        What a unit of each head adds to the utility, (4,).
    most
        What a level's price is expected to be worth at most, in standard deviations of the noise (`learners.priors.worth`).
    odds
        What quality's being between 0 and 1 adds to the prior; None for nothing.
    """
    with_quality = moments.sums[:, 0]
    sums = _sums(moments, layout, with_quality, slice(0, 1))
    of_quality, seen = precisions[0], None
    quality = solve(*sums, of_quality, NOISE, NOISE_N)
    if odds is not None:
        seen = Seen.of(moments, with_quality, odds.categories)
        by_odds = odds.precision(of_quality, float(quality.noise[0]), seen)
        shrunk = solve(*sums, by_odds, NOISE, NOISE_N)
        n = sums[-1]
        if evidence(quality, of_quality, n, NOISE_N) <= evidence(shrunk, by_odds, n, NOISE_N) + SURE:
            quality, of_quality = shrunk, by_odds
    others = solve_heads(moments, layout, with_quality + moments.sums[:, 1], slice(1, 4), precisions[1])
    expected = _expected(moments, layout, arms, factors, most * math.sqrt(quality.noise[0]), others)
    quality = quality.moved(of_quality * expected)
    if odds is not None and seen is not None:
        quality = quality.moved(of_quality * odds.shift(quality.theta[:, 0], seen))
    return quality, others


def _expected(
    moments: Moments, layout: Layout, arms: ArmSpace, factors: Float, most: float, others: Posterior
) -> Float:
    """Prior mean of the quality head, (D,): levels are expected to be worth a part of their cost and latency."""
    sums = moments.sums
    mean = np.zeros(layout.size)
    n = sums[:, :, -1].sum()
    if not n or most <= 0 or factors[0] <= 0:
        return mean
    context = sums[:, :, moments.last_column].sum(axis=(0, 1))[layout.columns] / n
    theta = others.theta[:, :2] @ -factors[1:3] / factors[0]
    start = layout.dim
    for levels in arms.knobs.values():
        end = start + len(levels) * len(layout.columns)
        prices = theta[start:end].reshape(len(levels), -1) @ context
        mean[start + len(layout.columns) - 1 : end : len(layout.columns)] = worth(prices, most)
        start = end
    return mean


def solve_heads(moments: Moments, layout: Layout, sums: Float, heads: slice, precisions: Float) -> Posterior:
    """Put the arms' sums together into the sums over phi(x, arm), and solve."""
    return solve(*_sums(moments, layout, sums, heads), precisions, NOISE, NOISE_N)


def _sums(moments: Moments, layout: Layout, sums: Float, heads: slice) -> tuple[Float, Float, Float, float]:
    """Sums over phi(x, arm): of phi phi' and y phi, of y^2, and the number of events."""
    seen = np.flatnonzero(sums[:, -1])
    xx, yx, yy, n = moments.unpack(sums[seen])
    gram, products = assemble(layout, seen, xx, yx[:, heads], n)
    return gram, products, yy[:, heads].sum(axis=0), float(n.sum())
