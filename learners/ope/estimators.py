"""IPS, SNIPS, DR and SWITCH: the value of a policy from decisions that another one drew.

With w = target probability / propensity of the arm taken, r its reward, q(x, a) a model of the rewards and
v = sum over the arms of target probability times q:

- IPS    mean of w r. Unbiased (Horvitz and Thompson, 1952).
- SNIPS  mean of w r over mean of w (Swaminathan and Joachims, NIPS 2015). Less noise, a bias that vanishes.
- DR     mean of v + w (r - q) (Dudik, Langford and Li, ICML 2011). Unbiased, and precise where the model is good.
- SWITCH mean of v + w (r - q) where w <= threshold, else v (SWITCH-DR of Wang, Agarwal and Dudik, ICML 2017): leaves
  the heaviest weights to the model. The threshold is the one that makes variance and bias bound smallest together.

The effective sample size (sum of w)^2 / (sum of w^2) says how many decisions the data are worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .decisions import Decisions, arm_means
from .intervals import Fake, Interval, Moments, bernstein, bernstein_ratio, likelihood

Float = NDArray[np.float64]

FEW = 100
"""Effective decisions below which an answer is called thin."""

_QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)


@dataclass(frozen=True)
class Estimate:
    """What a policy would have earned.

    Attributes
    ----------
    estimator : str
        ``ips``, ``snips``, ``dr`` or ``switch``.
    value : float
        Mean utility per decision.
    likelihood, bernstein : Interval
        See `learners.ope.intervals`; both cut to the range of the rewards.
    """

    estimator: str
    value: float
    likelihood: Interval
    bernstein: Interval


@dataclass(frozen=True)
class Evaluation:
    """All estimates of one policy.

    Attributes
    ----------
    n : int
        Decisions.
    ess : float
        Effective sample size, 0 when the target takes none of the arms that were taken.
    weight_mean, weight_max : float
        Of the importance weights seen; the mean is 1 but for chance when propensities are right.
    weight_limit : float
        The largest weight that could have been seen.
    logged : float
        Mean utility that the decisions did earn.
    switch_at : float
        Threshold of SWITCH.
    estimates : tuple of Estimate
        IPS, SNIPS, DR, SWITCH.
    """

    n: int
    ess: float
    weight_mean: float
    weight_max: float
    weight_limit: float
    logged: float
    switch_at: float
    estimates: tuple[Estimate, ...]

    def __getitem__(self, estimator: str) -> Estimate:
        """The estimate of this name."""
        return next(e for e in self.estimates if e.estimator == estimator)

    @property
    def thin(self) -> bool:
        """Whether the decisions are worth too few for this question."""
        return self.ess < FEW

    @property
    def off_balance(self) -> bool:
        """Whether the mean weight is not 1 by more than chance: then propensities are wrong, or decisions are missing."""
        if not self.ess:
            return True
        return abs(self.weight_mean - 1.0) > 4.0 * math.sqrt((self.n / self.ess - 1.0) / self.n) + 1e-9


def evaluate(
    decisions: Decisions,
    target: Float,
    *,
    confidence: float = 0.95,
    span: tuple[float, float] | None = None,
    switch_at: float | None = None,
    weight_limit: float | None = None,
    model: Float | None = None,
) -> Evaluation:
    """Estimate the value of a policy in all four ways.

    Parameters
    ----------
    decisions : Decisions
        What was logged.
    target : float64 array (n, K)
        Probability with which the policy would have taken each arm; 0 where not eligible, rows sum to 1.
    confidence : float
        Of the intervals, between 0 and 1.
    span : (float, float), optional
        Smallest and largest possible reward; of those seen by default.
    switch_at : float, optional
        Threshold of SWITCH; chosen from the data by default.
    weight_limit : float, optional
        Largest weight there can be; by default the largest target probability over the smallest propensity seen.
    model : float64 array (n, K), optional
        Rewards expected; `arm_means` by default.

    Raises
    ------
    ValueError
        When shapes differ, or `confidence` is not between 0 and 1.
    """
    if target.shape != decisions.eligible.shape:
        raise ValueError(f"target has shape {target.shape}, the decisions need {decisions.eligible.shape}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence!r}")
    n, rows, r = len(decisions), np.arange(len(decisions)), decisions.reward
    q = arm_means(decisions) if model is None else model
    w = target[rows, decisions.arm] / decisions.propensity
    q_taken, v = q[rows, decisions.arm], np.einsum("nk,nk->n", target, q)
    low, high = (float(r.min()), float(r.max())) if span is None else span
    limit = float(target.max() / decisions.propensity.min()) if weight_limit is None else weight_limit
    residual = w * (r - q_taken)
    at = switch_threshold(w, v, residual, high - low) if switch_at is None else switch_at
    kept = w <= at
    bias = (high - low) * float(w[~kept].sum()) / n
    delta, z = 1.0 - confidence, NormalDist().inv_cdf(0.5 + confidence / 2.0)
    worst, best = min(low - float(q.max()), 0.0), max(high - float(q.min()), 0.0)
    mid, q_span = float(v.mean()), float(q.max() - q.min())

    raw = moments_of(w * r, w)
    raw_interval = likelihood(raw, (Fake(limit, limit * low), Fake(0.0, 0.0)), (Fake(limit, limit * high), Fake(0.0, 0.0)), z)  # fmt: skip
    raw_span = limit * (max(high, 0.0) - min(low, 0.0))
    made = [
        Estimate("ips", raw.mean, raw_interval, bernstein(n, raw.mean, raw.variance, raw_span, delta)),
        Estimate(
            "snips",
            raw.mean / raw.weight_mean if raw.weight_mean > 0 else math.nan,
            raw_interval,
            bernstein_ratio(raw, limit * (high - low), delta),
        ),
    ]
    for name, terms, most, off in (
        ("dr", v + residual, limit, 0.0),
        ("switch", v + residual * kept, min(limit, at), bias),
    ):
        m = moments_of(terms, w)
        fakes = [(Fake(most, mid + most * end), Fake(0.0, mid)) for end in (worst, best)]
        made.append(
            Estimate(
                name,
                m.mean,
                likelihood(m, fakes[0], fakes[1], z).widened(off),
                bernstein(n, m.mean, m.variance, q_span + most * (best - worst), delta).widened(off),
            )
        )
    squares = float((w * w).sum())
    return Evaluation(
        n,
        float(w.sum()) ** 2 / squares if squares > 0 else 0.0,
        float(w.mean()),
        float(w.max()),
        limit,
        float(r.mean()),
        at,
        tuple(
            Estimate(e.estimator, e.value, e.likelihood.within(low, high), e.bernstein.within(low, high)) for e in made
        ),
    )


def switch_threshold(w: Float, v: Float, residual: Float, span: float) -> float:
    """The threshold of SWITCH, among quantiles of the weights, of the smallest variance plus squared bias bound.

    The bound is that of Wang, Agarwal and Dudik (section 3.4): the weight above the threshold, times the span of the rewards.
    """
    n = len(w)
    best, best_error = math.inf, math.inf
    for at in np.quantile(w, _QUANTILES):
        kept = w <= at
        terms = v + residual * kept
        error = float(terms.var()) / n + (span * float(w[~kept].sum()) / n) ** 2
        if error < best_error:
            best, best_error = float(at), error
    return best


def moments_of(terms: Float, w: Float) -> Moments:
    """Moments of the terms (n,) and their weights (n,)."""
    n = len(terms)
    if n < 2:
        return Moments(n, float(terms.mean()), 0.0, float(w.mean()), 0.0, 0.0)
    covariance = np.cov(terms, w)
    return Moments(
        n,
        float(terms.mean()),
        float(covariance[0, 0]),
        float(w.mean()),
        float(covariance[1, 1]),
        float(covariance[0, 1]),
    )
