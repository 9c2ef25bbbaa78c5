"""What it tells of quality that it lies between 0 and 1: how large effects of contexts can be, and that failure leaves no room to be worse.

What contexts do to an answer's quality is about as large everywhere *in log-odds*: an effect of b there is one of m (1 - m) b at the mean
quality m (the derivative of the logistic function: P. McCullagh and J. Nelder, Generalized Linear Models, 1989, section 4.3). So the
prior deviation of an effect is a constant times m (1 - m), and its precision, in events, the noise variance over its square.
Where answers are right or wrong (noise m (1 - m)) effects must earn belief; where a judge is nearly free of noise a few events tell;
where nearly all succeed effects are small.

Where effects plainly are larger than that (a small model that is always right on easy requests and never on others) they are believed as
`learners.priors` says: whenever the rewards are likelier by `SURE` under those precisions (Bayes factor of the two priors; Bishop, PRML 3.4).

And where nearly all answers fail, no arm can be much worse than another: the difference between arms that is expected in a category shrinks
in proportion to s (1 - s), s being the quality seen in it. What is in doubt about the arms stays as wide, so the others are tried there, which costs next to nothing.
Not so where nearly all succeed: there an arm can be much worse.

All are functions of the sums that are kept anyway (`learners.moments`), so they hold for shards and batches alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.features import Categorical, FeatureSpec
from steersman.layout import Layout

from .moments import Moments

Float = NDArray[np.float64]

LEAST, MOST = 0.1, 4.0
"""What the precisions of `learners.priors` are multiplied with, at least and at most."""

SURE = 2.0
"""So much likelier (logarithm) the rewards must be under the precisions as given for those to be taken."""

_EVENTS = 10.0
"""What quality in the mean is expected to be 1/2 for, in events."""

_CATEGORY_EVENTS = 1.0
"""Events that a category is expected to be like the others for."""


@dataclass(frozen=True)
class Seen:
    """What was seen of quality.

    Attributes
    ----------
    mean : float
        Of all rewards and `_EVENTS` half of which are right.
    bounded : bool
        Whether all qualities can have been between 0 and 1: then their squares add up to no more than they do.
    counts, totals : float64 array (C,)
        Rewards in each category, and the sum of their qualities.
    context : float64 array (d,)
        Mean of x.
    """

    mean: float
    bounded: bool
    counts: Float
    totals: Float
    context: Float

    @classmethod
    def of(cls, moments: Moments, sums: Float, categories: Sequence[int]) -> Seen:
        """From the sums of the rewards with quality, (K, W), and the columns of x that are categories."""
        seen = sums[np.flatnonzero(sums[:, -1])]
        squares, products, square, counts = moments.unpack(seen)
        at = list(categories)
        n, total = float(counts.sum()), float(products[:, 0, -1].sum())
        return cls(
            (total + 0.5 * _EVENTS) / (n + _EVENTS),
            bool(n > 0 and square[:, 0].sum() <= total + 1e-9 * n),
            squares[:, at, at].sum(axis=0),
            products[:, 0, at].sum(axis=0),
            squares[:, -1].sum(axis=0) / max(n, 1e-300),
        )


@dataclass(frozen=True)
class Odds:
    """Prior of effects of the context on the quality of levels.

    Attributes
    ----------
    layout : Layout
        Of the quality head.
    categories : tuple of int
        Columns of x that are categories and interact with the levels.
    features : int
        Features that they belong to.
    """

    layout: Layout
    categories: tuple[int, ...]
    features: int

    @classmethod
    def make(cls, layout: Layout, features: FeatureSpec) -> Odds:
        """For a head that sees features after what else it sees."""
        hidden, interacting = layout.dim - features.dim, set(layout.columns.tolist())
        columns = (hidden + i for i, kind in enumerate(features.kinds) if kind == "categorical")
        count = sum(isinstance(feature, Categorical) for feature in features.features)
        return cls(layout, tuple(column for column in columns if column in interacting), count)

    def precision(self, given: Float, noise: float, seen: Seen) -> Float:
        """Prior precisions, (D,), from those `given`: of effects of contexts on levels noise / (m (1 - m))^2 times as much."""
        if not seen.bounded:
            return given
        made = given.copy()
        slope = seen.mean * (1.0 - seen.mean)
        self._levels(made)[:, :-1] *= min(max(noise / (slope * slope), LEAST), MOST)
        return made

    def shift(self, theta: Float, seen: Seen) -> Float:
        """Prior mean, (D,): where nearly all fail, arms whose effects are theta (D,) are expected to differ less."""
        mean = np.zeros(self.layout.size)
        if not seen.bounded or not self.categories:
            return mean
        quality = (seen.totals + _CATEGORY_EVENTS * seen.mean) / (seen.counts + _CATEGORY_EVENTS)
        room = np.minimum(1.0, quality * (1.0 - quality) / (seen.mean * (1.0 - seen.mean)))
        less = np.where(quality < 0.5, room - 1.0, 0.0) / self.features
        effects = self._levels(theta) @ seen.context[self.layout.columns]
        at = np.searchsorted(self.layout.columns, self.categories)
        self._levels(mean)[:, at] = np.outer(effects, less)
        return mean

    def _levels(self, parameters: Float) -> Float:
        """Those of the levels, (L, m): a view."""
        start, m = self.layout.dim, len(self.layout.columns)
        return parameters[start : start + self.layout.n_levels * m].reshape(-1, m)
