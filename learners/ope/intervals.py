"""Intervals for the mean of weighted rewards, each in closed form of a few moments, so that SQL gives the same ones.

*Likelihood*: the Euclidean empirical likelihood (Cressie-Read power -2) of Karampatziakis, Langford and Mineiro,
"Empirical Likelihood for Contextual Bandits", NeurIPS 2020: all means that reweighted data give, where the reweighting
is within a chi-square ball and makes the mean importance weight 1, which it is known to be. To the data one decision is
added that was not seen but could have been, the worst one for the bound; without it, heavy weights that happen not to be
in the sample would make the interval too short. In closed form it is the regression of the terms on the weights:
estimate at weight 1, plus or minus z times its standard error. Right in the limit of many decisions.

*Bernstein*: the empirical Bernstein bound of Maurer and Pontil, "Empirical Bernstein Bounds and Sample Variance
Penalization", COLT 2009, theorem 4: right for every number of decisions, and much wider.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float

    def within(self, low: float, high: float) -> Interval:
        """Cut to what is possible at all."""
        return Interval(min(max(self.low, low), high), max(min(self.high, high), low))

    def widened(self, by: float) -> Interval:
        """Moved apart at both ends."""
        return Interval(self.low - by, self.high + by)


@dataclass(frozen=True)
class Moments:
    """What is known of n terms g and their weights w; variances and covariance are over n - 1 (0 for a single term)."""

    n: int
    mean: float
    variance: float
    weight_mean: float
    weight_variance: float
    covariance: float


class Fake(NamedTuple):
    """A decision that could have been: its weight and its term."""

    weight: float
    term: float


def likelihood(moments: Moments, low: Iterable[Fake], high: Iterable[Fake], z: float) -> Interval:
    """Empirical-likelihood interval of the mean (see the module).

    Parameters
    ----------
    moments : Moments
        Of the terms.
    low, high : iterable of Fake
        Unseen decisions that could lower and raise the mean the most.
    z : float
        Quantile of the standard normal distribution: 1.96 for 95 %.
    """
    ends = []
    for fakes, sign in ((low, -1.0), (high, 1.0)):
        ends.append(sign * max(sign * _end(moments, fake, sign * z) for fake in fakes))
    return Interval(*ends)


def _end(moments: Moments, fake: Fake, z: float) -> float:
    n, m = moments.n, moments.n + 1
    off_w, off_g = fake.weight - moments.weight_mean, fake.term - moments.mean
    s_ww = (n - 1) * moments.weight_variance + n / m * off_w * off_w
    s_gg = (n - 1) * moments.variance + n / m * off_g * off_g
    s_gw = (n - 1) * moments.covariance + n / m * off_g * off_w
    slope = s_gw / s_ww if s_ww > 0 else 0.0
    centre = moments.mean + off_g / m + slope * (1.0 - moments.weight_mean - off_w / m)
    return centre + z * math.sqrt(max(s_gg - slope * s_gw, 0.0) / max(m - 2, 1) / m)


def bernstein(n: int, mean: float, variance: float, span: float, delta: float) -> Interval:
    """Empirical Bernstein interval of the mean of n terms that lie within a known span, right with 1 - delta."""
    if n < 2:
        return Interval(-math.inf, math.inf)
    log = math.log(4.0 / delta)
    half = math.sqrt(2.0 * variance * log / n) + 7.0 * span * log / (3.0 * (n - 1))
    return Interval(mean - half, mean + half)


def bernstein_ratio(moments: Moments, span: float, delta: float) -> Interval:
    """Empirical Bernstein interval of mean(w r) / mean(w), r within `span`: all values v that w (r - v) allows to have mean 0.

    Parameters
    ----------
    moments : Moments
        Of the terms w r and the weights w.
    span : float
        Span of w (r - v) for every possible v.
    delta : float
        Chance of being wrong.
    """
    n = moments.n
    if n < 2:
        return Interval(-math.inf, math.inf)
    log = math.log(4.0 / delta)
    k, c = 2.0 * log / n, 7.0 * span * log / (3.0 * (n - 1))
    a = moments.weight_mean**2 - k * moments.weight_variance
    ends = []
    for sign in (-1.0, 1.0):
        top = moments.mean + sign * c
        b = top * moments.weight_mean - k * moments.covariance
        inner = b * b - a * (top * top - k * moments.variance)
        ends.append((b + sign * math.sqrt(max(inner, 0.0))) / a if a > 0 else sign * math.inf)
    return Interval(*ends)
