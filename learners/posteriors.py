"""From the sums of a policy to what is believed of its heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace
from steersman.layout import Layout

from .declared import Declared
from .gram import assemble
from .moments import Moments
from .odds import SURE, Odds, Seen
from .priors import NOISE, NOISE_N, worth
from .regression import Posterior, centred, evidence, solve

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Beliefs:
    """What is believed of the heads before any reward.

    Attributes
    ----------
    layout
        Of the heads: columns of peers before those of x.
    arms
        The arms, in the order of the moments.
    precisions
        Prior precisions of the quality head and of the others, (D,) each.
    most
        What a level's price is expected to be worth at most, in standard deviations of the noise (`learners.priors.worth`).
    odds
        What quality's being between 0 and 1 adds to the prior; None for nothing.
    """

    layout: Layout
    arms: ArmSpace
    precisions: tuple[Float, Float]
    most: float
    odds: Odds | None = None

    def posteriors(
        self, moments: Moments, factors: Float, declared: Declared | None = None
    ) -> tuple[Posterior, Posterior]:
        """Return the posterior of the quality head, and of cost, latency and failures (three columns, in scales).

        Parameters
        ----------
        moments
            What was seen of each arm.
        factors
            What a unit of each head adds to the utility, (4,).
        declared
            What the policy's file says of its levels.
        """
        with_quality, odds, layout = moments.sums[:, 0], self.odds, self.layout
        of_quality, of_others = self.precisions
        means = np.zeros((layout.size, 4))
        if declared is not None:
            of_quality, means = declared.precision(of_quality), declared.mean
        gram, products, squares, n = _sums(moments, layout, with_quality, slice(0, 1))
        gram, products, squares = centred(gram, products, squares, means[:, :1])
        quality, seen = solve(gram, products, squares, n, of_quality, NOISE, NOISE_N), None
        if odds is not None:
            seen = Seen.of(moments, with_quality, odds.categories)
            by_odds = odds.precision(of_quality, float(quality.noise[0]), seen)
            shrunk = solve(gram, products, squares, n, by_odds, NOISE, NOISE_N)
            if evidence(quality, of_quality, n, NOISE_N) <= evidence(shrunk, by_odds, n, NOISE_N) + SURE:
                quality, of_quality = shrunk, by_odds
        everything = with_quality + moments.sums[:, 1]
        others = solve_heads(moments, layout, everything, slice(1, 4), of_others, means[:, 1:])
        most = self.most * math.sqrt(quality.noise[0])
        expected = _expected(moments, layout, self.arms, factors, most, others)
        if declared is not None:
            expected[declared.known] = 0.0
        quality = quality.moved(of_quality * expected)
        quality = quality._replace(theta=quality.theta + means[:, :1])
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


def solve_heads(
    moments: Moments, layout: Layout, sums: Float, heads: slice, precisions: Float, means: Float | None = None
) -> Posterior:
    """Put the arms' sums together into the sums over phi(x, arm), and solve; `means` (D, H) are the heads' prior means, 0 by default."""
    gram, products, squares, n = _sums(moments, layout, sums, heads)
    if means is None:
        return solve(gram, products, squares, n, precisions, NOISE, NOISE_N)
    made = solve(*centred(gram, products, squares, means), n, precisions, NOISE, NOISE_N)
    return made._replace(theta=made.theta + means)


def _sums(moments: Moments, layout: Layout, sums: Float, heads: slice) -> tuple[Float, Float, Float, float]:
    """Sums over phi(x, arm): of phi phi' and y phi, of y^2, and the number of events."""
    seen = np.flatnonzero(sums[:, -1])
    xx, yx, yy, n = moments.unpack(sums[seen])
    gram, products = assemble(layout, seen, xx, yx[:, heads], n)
    return gram, products, yy[:, heads].sum(axis=0), float(n.sum())
