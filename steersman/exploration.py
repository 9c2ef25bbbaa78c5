"""Exploration rules: from what is expected of the arms, and how doubtful it is, to how often each is taken.

Every rule returns weights, float64 (K,), which `steersman.scoring` normalises over the eligible arms, mixes with the floor and
draws from: so what is logged is the exact propensity, whatever a rule approximates. `scale` is the snapshot's.

==========  ===========================================================================  =====================================
kind        weight of an arm                                                             source
==========  ===========================================================================  =====================================
maillard    exp(-gap^2 / (2 (scale s)^2)), s the deviation of the contrast with the best, Maillard 2013; Bian and Jun 2022
            plus w exp(-gap^2 / (2 s^2)), w the snapshot's for the arm: a second look      Phan, Abbasi-Yadkori and Domke 2019
thompson    probability of being the best under independent normals N(-gap, (scale s)^2)  Thompson 1933; Agrawal and Goyal 2013
igw         1 / (K + scale gap), the best arm has the rest (inverse-gap weighting)        Foster and Rakhlin 2020 (SquareCB)
softmax     exp(-gap / scale)                                                             Cesa-Bianchi and Fischer 1998
ucb         1 for the largest utility + scale s_a, s_a the arm's own deviation            Auer 2002; Li et al. 2010 (LinUCB)
greedy      1 for the best arm: with a floor this is epsilon-greedy                       Watkins 1989
==========  ===========================================================================  =====================================

Scales of maillard, thompson and ucb multiply deviations of the quality, times quality's weight; that of igw is a weight per
unit of utility, and that of softmax a temperature in units of utility.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

KINDS = ("maillard", "thompson", "igw", "softmax", "ucb", "greedy")
DOUBTING = ("maillard", "thompson", "ucb")
"""Kinds that need the covariance of the quality."""

TINY = 1e-30
_CELLS = 48
_EDGES = np.linspace(0.0, 1.0, _CELLS + 1)
_REACH = 4.0


def maillard(
    gap: Float,
    variance: Float,
    two_scale2: float | Float,
    tiny: float | Float = TINY,
    second: Float | None = None,
    ratio: float = 1.0,
) -> Float:
    """Maillard sampling, with a second look at arms.

    Parameters
    ----------
    gap : float64 array (..., K)
        Lead of the best arm.
    variance : float64 array (..., K)
        Of the contrasts with the best arm; overwritten.
    two_scale2 : float or float64 array (..., K)
        2 scale^2.
    tiny : float or float64 array (..., K)
        Keeps the quotient finite.
    second : float64 array (K,), optional
        Weights of the second look.
    ratio : float
        scale^2: how much narrower the first one is, squared.

    Notes
    -----
    A rule that is narrower than what is known (scale < 1) may give the best arm up for ever after bad luck with its first few rewards:
    M. Phan, Y. Abbasi-Yadkori and J. Domke, "Thompson Sampling and Approximate Inference", NeurIPS 2019, show that its regret is
    linear, and that a little more exploration mends it. The second look is as wide as what is known, so it ends where an arm is known.
    """
    variance *= two_scale2
    variance += tiny
    quotient = -gap * gap / variance
    chance = np.asarray(np.exp(quotient))
    if second is not None:
        chance += second * np.exp(quotient * ratio)
    return chance


def thompson(gap: Float, deviation: Float, best: int, eligible: Mask | None = None) -> Float:
    """Probability that an arm is the best, the best one's utility being the origin: 48 cells of the integral.

    Parameters
    ----------
    gap, deviation : float64 array (K,)
        Lead of the best arm, and deviations, scale included.
    best : int
        The arm that leads.
    eligible : bool array (K,), optional
        Arms that compete.

    Notes
    -----
    The normal distribution function is taken as (1 + tanh(0.79788 (z + 0.044715 z^3))) / 2, which is right to 2e-4
    (Page 1977).
    """
    rivals = np.ones(len(gap), dtype=bool) if eligible is None else eligible.copy()
    rivals[best] = False
    chance = np.zeros(len(gap))
    mean, spread = -gap[rivals], np.maximum(deviation[rivals], 1e-15)
    chance[best] = np.prod(_normal(-mean / spread))
    top = float((mean + _REACH * spread).max(initial=0.0))
    if top > 0.0:
        below = _normal((top * _EDGES - mean[:, None]) / spread[:, None])
        middle = np.maximum(0.5 * (below[:, 1:] + below[:, :-1]), 1e-12)
        logs = np.log(middle)
        chance[rivals] = np.maximum(((below[:, 1:] - below[:, :-1]) * np.exp(logs.sum(axis=0) - logs)).sum(axis=1), 0.0)
    return chance


def inverse_gap(gap: Float, gamma: float, best: int, eligible: Mask | None = None) -> Float:
    """Inverse-gap weighting over the eligible arms; `gap` is float64 (K,), `gamma` per unit of utility."""
    count = len(gap) if eligible is None else int(np.count_nonzero(eligible))
    chance = 1.0 / (count + gamma * np.maximum(gap, 0.0))
    if eligible is not None:
        chance = np.where(eligible, chance, 0.0)
    chance[best] = 0.0
    chance[best] = 1.0 - chance.sum()
    return np.asarray(chance)


def softmax(gap: Float, temperature: float) -> Float:
    """Boltzmann weights; `gap` is float64 (..., K)."""
    return np.asarray(np.exp(-gap / max(temperature, TINY)))


def optimism(utility: Float, deviation: Float, eligible: Mask | None = None) -> Float:
    """All weight on the largest upper bound; arrays float64 (K,), `deviation` with the scale included."""
    bound = utility + deviation
    if eligible is not None:
        bound = np.where(eligible, bound, -math.inf)
    chance = np.zeros(len(bound))
    chance[int(bound.argmax())] = 1.0
    return chance


def _normal(z: Float) -> Float:
    z = np.clip(z, -8.0, 8.0)
    return np.asarray(0.5 + 0.5 * np.tanh(0.7978845608 * (z + 0.044715 * z * z * z)))
