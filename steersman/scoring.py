"""The one copy of the arithmetic that turns a snapshot and a context into propensities.

For a context x and arm a every head predicts ``phi(x, a) . theta`` (see `steersman.layout`), and

    utility_a = sum over terms  weight * component_a / scale  -  sum over ceilings  multiplier * component_a / scale

Exploration is Maillard sampling (O.-A. Maillard, 2013; J. Bian and K.-S. Jun, AISTATS 2022): with `best` the arm of the
highest utility, gap_a its lead over a, and s_a the posterior deviation of the *difference* of their qualities
(times quality's weight), so that what arms share does not count as doubt,

    p_a  proportional to  exp(-gap_a^2 / (2 (exploration_scale * s_a)^2))

over the eligible arms, then mixed with an even floor: p_a <- (1 - floor) p_a + floor / number of eligible arms.
It is closed form, so the logged propensity is exact, and random, so delayed rewards do not pile decisions on one arm.
``greedy`` is p_best = 1 before the floor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .layout import make_layout
from .snapshot import COVARIANCE, HEADS, PolicySnapshot

Float = NDArray[np.float64]

_TINY = 1e-30


class Scores(NamedTuple):
    """What a snapshot says about one context; arrays are float64 (K,), in the order of the arms.

    Attributes
    ----------
    utility : expected utility.
    propensity : probability of each arm; 0 where not eligible, sums to 1.
    greedy : index of the eligible arm of the highest utility.
    quality : expected quality, in the metric's unit.
    cost : expected cost, in millionths of a US dollar.
    latency : expected latency, in microseconds.
    failures : expected number of failed spans.
    """

    utility: Float
    propensity: Float
    greedy: int
    quality: Float
    cost: Float
    latency: Float
    failures: Float


class Scorer:
    """Scores contexts under one snapshot. Immutable after construction, so threads may share it.

    Parameters
    ----------
    snapshot : PolicySnapshot
        Its float32 tensors are used as they are; sums run in float64.
    """

    def __init__(self, snapshot: PolicySnapshot) -> None:
        layout = make_layout(snapshot.arms, snapshot.features)
        self.layout = layout
        self.snapshot = snapshot
        d, m, n_levels = layout.dim, len(layout.columns), layout.n_levels
        level_size = n_levels * m
        heads = np.stack([snapshot.tensors[f"weights.{head}"].astype(np.float64) for head in HEADS])
        self._columns = None if m == d else layout.columns
        self._shared = heads[:, :d]
        self._levels = heads[:, d : d + level_size].reshape(len(HEADS) * n_levels, m)
        self._spread = np.ascontiguousarray(layout.level_of.T)
        self._pairs = heads[:, d + level_size :] @ layout.pair_of.T
        weights = dict.fromkeys(HEADS, 0.0)
        scales = dict.fromkeys(HEADS, 1.0)
        for term in snapshot.objective:
            weights[term.component] += term.weight / term.scale
            scales[term.component] = term.scale
        for multiplier in snapshot.multipliers:
            weights[multiplier.component] -= multiplier.value / scales[multiplier.component]
        self._weights = np.array([weights[head] for head in HEADS])
        self._baseline = snapshot.arms.index(snapshot.baseline)
        self._floor = snapshot.floor
        width = snapshot.exploration_scale * abs(weights["quality"])
        self._explores = snapshot.exploration == "maillard" and width > 0 and layout.n_arms > 1
        self._two_width2 = 2.0 * width * width
        self._every = np.ones(layout.n_arms, dtype=bool)
        self._set_up_covariance(snapshot.tensors[COVARIANCE], level_size, n_levels, m)

    def _set_up_covariance(self, packed: NDArray[np.float32], level_size: int, n_levels: int, m: int) -> None:
        size = self.layout.arm_size
        full = np.zeros((size, size), dtype=np.float32)
        full[np.tril_indices(size)] = packed
        full = full + np.tril(full, -1).T
        self._cov_levels = np.ascontiguousarray(full[:, :level_size]).reshape(size * n_levels, m)
        pairs = self.layout.pair_of
        self._pair_cov: Float = pairs @ full[level_size:, level_size:].astype(np.float64) @ pairs.T
        self._pair_var = np.ascontiguousarray(np.diag(self._pair_cov))

    def _contrast_variance(self, x: Float, best: int) -> Float:
        """Posterior variance of quality_a - quality_best for every arm a, float64 (K,)."""
        layout = self.layout
        n_levels, m = layout.n_levels, len(x)
        products = (self._cov_levels @ x.astype(np.float32)).reshape(-1, n_levels)
        level_cov = x @ products[: n_levels * m].reshape(n_levels, m, n_levels)
        contrast = layout.level_of - layout.level_of[best]
        variance: Float = ((contrast @ level_cov) * contrast).sum(axis=1)
        if layout.n_pairs:
            pair_contrast = layout.pair_of - layout.pair_of[best]
            cross = pair_contrast @ products[n_levels * m :].astype(np.float64)
            variance += 2.0 * (cross * contrast).sum(axis=1)
            variance += self._pair_var + self._pair_var[best] - 2.0 * self._pair_cov[best]
        return np.maximum(variance, 0.0)

    def score(self, x: NDArray[np.floating], eligible: NDArray[np.bool_] | None = None) -> Scores:
        """Expected components, utility and propensity of every arm.

        Parameters
        ----------
        x : float array (d,)
            Encoded context.
        eligible : bool array (K,), optional
            Arms allowed; all by default.

        Raises
        ------
        ValueError
            When x has another length or is not finite, or no arm is eligible.
        """
        layout = self.layout
        if x.shape != (layout.dim,):
            raise ValueError(f"x has shape {x.shape}, the policy needs ({layout.dim},)")
        mask = self._every if eligible is None else eligible
        if mask.shape != (layout.n_arms,):
            raise ValueError(f"eligible has shape {mask.shape}, the policy needs ({layout.n_arms},)")
        count = int(np.count_nonzero(mask))
        if not count:
            raise ValueError("no arm is eligible")
        x64 = x.astype(np.float64)
        inter = x64 if self._columns is None else x64[self._columns]
        heads = (self._levels @ inter).reshape(len(HEADS), -1) @ self._spread
        heads += (self._shared @ x64)[:, None]
        heads += self._pairs
        utility: Float = self._weights @ heads
        if not np.isfinite(utility).all():
            raise ValueError("the context makes a utility that is not finite")
        allowed = utility if eligible is None else np.where(mask, utility, -np.inf)
        greedy = int(allowed.argmax())
        if allowed[self._baseline] == allowed[greedy]:
            greedy = self._baseline
        if self._explores and count > 1:
            gap = utility[greedy] - utility
            spread = self._two_width2 * self._contrast_variance(inter, greedy)
            chance = np.exp(-gap * gap / (spread + _TINY))
            if eligible is not None:
                chance = np.where(mask, chance, 0.0)
        else:
            chance = np.zeros(layout.n_arms)
            chance[greedy] = 1.0
        chance *= (1.0 - self._floor) / chance.sum()
        if self._floor > 0:
            chance[mask] += self._floor / count
        return Scores(utility, chance, greedy, heads[0], heads[1], heads[2], heads[3])


def draw(propensity: Float, u: float) -> int:
    """Index of the arm that a uniform number u in [0, 1) picks under these propensities; never one of propensity 0."""
    cumulative = np.cumsum(propensity)
    index = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    if index >= len(propensity) or propensity[index] <= 0:
        index = int(np.flatnonzero(propensity > 0)[-1])
    return index
