"""How much more another policy would have earned than the one that drew: on the same decisions, so most of the noise is in both."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .decisions import Decisions, arm_means
from .estimators import moments_of
from .intervals import Fake, Interval, likelihood

Float = NDArray[np.float64]


class Gain(NamedTuple):
    """Mean reward of the target less that of the logged decisions.

    Attributes
    ----------
    value : float
        By DR.
    interval : Interval
        As `learners.ope.intervals.likelihood`; right in the limit of many decisions.
    """

    value: float
    interval: Interval


def gain(decisions: Decisions, target: Float, *, confidence: float = 0.95, model: Float | None = None) -> Gain:
    """Estimate the gain, doubly robust: the mean of v + w (r - q) - r, in the notation of `learners.ope.estimators`.

    Parameters
    ----------
    decisions, target, confidence, model
        As of `learners.ope.estimators.evaluate`.
    """
    rows, r = np.arange(len(decisions)), decisions.reward
    q = arm_means(decisions) if model is None else model
    w = target[rows, decisions.arm] / decisions.propensity
    v = np.einsum("nk,nk->n", target, q)
    moments = moments_of(v + w * (r - q[rows, decisions.arm]) - r, w)
    low, high = float(r.min()), float(r.max())
    mid, most = float(v.mean()), float(target.max() / decisions.propensity.min())
    # The decision that was not seen and would move the mean the most: of the largest weight, or of none.
    worst = Fake(most, mid + most * min(low - float(q.max()), 0.0) - low), Fake(0.0, mid - high)
    best = Fake(most, mid + most * max(high - float(q.min()), 0.0) - high), Fake(0.0, mid - low)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    return Gain(moments.mean, likelihood(moments, worst, best, z).within(low - high, high - low))
