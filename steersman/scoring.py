"""The one copy of the arithmetic that turns a snapshot and a context into propensities.

For a context x and arm a every head predicts ``phi(x, a) . theta`` (see `steersman.layout`), and

    utility_a = sum over terms  weight * component_a / scale  -  sum over ceilings  multiplier * component_a / scale

where a ceiling of one tenant counts for the contexts whose tenant feature says that tenant; steady ceilings charge for the square of
what is used too (`steersman.squares`).

Exploration is by one of the rules of `steersman.exploration`; by default it is Maillard sampling (O.-A. Maillard, 2013;
J. Bian and K.-S. Jun, AISTATS 2022): with `best` the arm of the highest utility, gap_a its lead over a, and s_a the posterior deviation of the *difference* of their qualities
(times quality's weight), so that what arms share does not count as doubt,

    p_a  proportional to  exp(-gap_a^2 / (2 (exploration_scale * s_a)^2))  +  w_a exp(-gap_a^2 / (2 s_a^2))

over the eligible arms, w_a being the snapshot's weight of a second look at the arm, then mixed with an even floor: p_a <- (1 - floor) p_a + floor / number of eligible arms.
It is closed form, so the logged propensity is exact, and random, so delayed rewards do not pile decisions on one arm.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import exp, inf, isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import exploration
from .encoder import Encoder, has_encoder
from .snapshot import COVARIANCE, HEADS, SECOND_LOOK, TOOL_CALLS, TOOL_WEIGHTS, Multiplier, PolicySnapshot
from .squares import SQUARES, Squares

Float = NDArray[np.float64]
_FEW_ARMS = 32
"""So many arms are weighed and drawn from faster as numbers than as an array: a call of numpy costs as much as five numbers."""
_FEW_CONTRASTS = 1 << 17
"""Numbers in the contrasts of all pairs of arms up to which they are laid out beforehand (1 MB)."""


class Scores(NamedTuple):
    """How good the arms are in one context; arrays are float64 (K,), in the order of the arms.

    Attributes
    ----------
    utility : expected utility.
    propensity : probability of each arm; 0 where not eligible, sums to 1.
    greedy : index of the eligible arm of the highest utility.
    """

    utility: Float
    propensity: Float
    greedy: int


class Weighed(NamedTuple):
    """`Scores` as the router uses them: the propensity is a list where arms are few."""

    utility: Float
    propensity: Float | list[float]
    greedy: int


class Components(NamedTuple):
    """What is expected of the arms in one context; arrays are float64 (K,), in the order of the arms.

    Attributes
    ----------
    quality : expected quality, in the metric's unit.
    cost : expected cost, in millionths of a US dollar.
    latency : expected latency, in microseconds.
    failures : expected number of failed spans.
    """

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

    Notes
    -----
    For products this small ``dot`` takes half the time of ``@``, and an array as operand half the time of a number: hence the
    arrays of equal entries, one for each arm.
    """

    def __init__(self, snapshot: PolicySnapshot) -> None:
        layout = snapshot.layout
        self.layout = layout
        self.snapshot = snapshot
        self._dim = snapshot.features.dim
        self._encoder = Encoder(snapshot.tensors) if has_encoder(snapshot.tensors) else None
        self._columns = None if len(layout.columns) == layout.dim else layout.columns
        self._zeros = np.zeros(layout.n_arms)
        self._baseline = snapshot.arms.index(snapshot.baseline)
        self._floor = snapshot.floor
        self._even = np.full(layout.n_arms, snapshot.floor / layout.n_arms)
        self._few = layout.n_arms <= _FEW_ARMS
        self._contrasts: list[Float] = []
        self._tiny = np.full(layout.n_arms, exploration.TINY)
        weights = dict.fromkeys(HEADS, 0.0)
        scales = dict.fromkeys(HEADS, 1.0)
        for term in snapshot.objective:
            weights[term.component] += term.weight / term.scale
            scales[term.component] = term.scale
        priced = self._parameters(weights, scales, [m for m in snapshot.multipliers if not m.tenant])
        self._weights = self._of_arms(priced)
        self._first_tenant, self._tenants = self._by_tenant(priced, scales)
        self._squares_of = self._squared() if SQUARES in snapshot.tensors else None
        width = snapshot.exploration_scale * abs(weights["quality"])
        self._kind = snapshot.exploration
        self._explores = self._kind in exploration.DOUBTING and width > 0 and layout.n_arms > 1
        self._width, self._two_width2 = width, 2.0 * width * width
        looks = snapshot.tensors.get(SECOND_LOOK)
        self._second = None if looks is None else looks.astype(np.float64)
        self._seconds: list[float] = [] if looks is None else looks.tolist()
        self._ratio = snapshot.exploration_scale * snapshot.exploration_scale
        self._two_widths2 = np.full(layout.n_arms, self._two_width2)
        if self._explores:
            self._set_up_variance(snapshot.tensors[COVARIANCE])

    def _parameters(self, weights: dict[str, float], scales: dict[str, float], prices: list[Multiplier]) -> Float:
        """Parameters of the utility, (D,): of the heads by these weights, less what ceilings cost."""
        weights, calls = dict(weights), 0.0
        for price in prices:
            if price.component == TOOL_CALLS:
                calls += price.value
            else:
                weights[price.component] -= price.value / scales[price.component]
        made: Float = np.array([weights[head] for head in HEADS]) @ self._heads()
        if calls:
            made = made - calls * self.snapshot.tensors[TOOL_WEIGHTS].astype(np.float64)
        return made

    def _of_arms(self, theta: Float) -> Float:
        """Weights of the arms, (K, d), by parameters (D,)."""
        shared, own = self.layout.by_arm(theta)
        made = np.tile(shared, (len(own), 1))
        made[:, self.layout.columns] += own
        return made

    def _by_tenant(self, priced: Float, scales: dict[str, float]) -> tuple[int, list[Float | None]]:
        """First column of the tenant feature, and by its columns the utility's parameters where a ceiling is the tenant's own."""
        snapshot = self.snapshot
        of: dict[str, list[Multiplier]] = {}
        for price in snapshot.multipliers:
            if price.tenant and price.value:
                of.setdefault(price.tenant, []).append(price)
        if not of:
            return 0, []
        none = dict.fromkeys(HEADS, 0.0)
        made = [
            self._of_arms(priced + self._parameters(none, scales, of[tenant])) if tenant in of else None
            for tenant in snapshot.tenants
        ]
        return snapshot.features.column(snapshot.tenant_feature), made

    def _squared(self) -> Squares:
        """What steady ceilings charge for the square of use."""
        snapshot = self.snapshot
        calls = snapshot.tensors.get(TOOL_WEIGHTS)
        rows = [self._of_arms(head) for head in self._heads()]
        more = None if calls is None else self._of_arms(calls.astype(np.float64))
        first = snapshot.features.column(snapshot.tenant_feature) if snapshot.tenants else 0
        return Squares(snapshot.tensors[SQUARES], [*rows, more], first)

    def _weights_in(self, x: NDArray[np.floating]) -> Float:
        """Utility of each arm per entry of x, float64 (K, d), in the context x as it was encoded, float (d,): an arm's utility
        is its row times x, less the price of ceilings of the context's tenant."""
        if not self._tenants:
            return self._weights
        columns = x[self._first_tenant : self._first_tenant + len(self._tenants)]
        at = int(columns.argmax())
        found = self._tenants[at] if columns[at] > 0.0 else None
        return self._weights if found is None else found

    def _heads(self) -> Float:
        """Parameters of the heads, (4, D)."""
        return np.stack([self.snapshot.tensors[f"weights.{head}"].astype(np.float64) for head in HEADS])

    def _set_up_variance(self, packed: NDArray[np.float32]) -> None:
        """Lay the covariance out for `_contrast_variance`."""
        layout = self.layout
        level_of, pair_of = layout.level_of, layout.pair_of
        n_levels, m, size = layout.n_levels, len(layout.columns), layout.arm_size
        at = n_levels * m
        lower = np.zeros((size, size), dtype=np.float32)
        lower[np.tri(size, dtype=bool)] = packed
        full = lower + lower.T
        np.fill_diagonal(full, lower.diagonal())
        self._levels_of = [row.nonzero()[0].tolist() for row in level_of]
        of_level = full[:, :at].reshape(size, n_levels, m).transpose(1, 0, 2).astype(np.float64, order="C")
        of_pair = full[at:].astype(np.float64)
        # Times a power of two every product and sum has the same digits.
        self._of_level, self._of_pair = -2.0 * of_level, -2.0 * of_pair
        self._one_knob = n_levels == layout.n_arms and bool((level_of == np.eye(n_levels)).all())
        # An arm's variance is quadratic in x, so one row of coefficients: of x_i x_j, i <= j, for the blocks of its levels;
        # what its pairs add is linear in x and goes to the products with the last column, which is 1.
        one, two = np.triu_indices(n_levels)
        i, j = np.triu_indices(m)
        blocks = of_level[:, :at].reshape(n_levels, n_levels, m, m)[one, two]
        blocks = (blocks + blocks.transpose(0, 2, 1))[:, i, j]
        blocks *= np.where(one == two, 1.0, 2.0)[:, None] * np.where(i == j, 0.5, 1.0)
        self._variance = (level_of[:, one] * level_of[:, two]) @ blocks
        linear = ((pair_of @ of_pair[:, :at]).reshape(-1, n_levels, m) * (2.0 * level_of[:, :, None])).sum(axis=1)
        linear[:, -1] += ((pair_of @ of_pair[:, at:]) * pair_of).sum(axis=1)
        self._variance[:, j == m - 1] += linear
        self._squares = i, j
        if self._one_knob and (n_levels * m) ** 2 <= _FEW_CONTRASTS:
            # For each best arm, the quadratic forms of all arms' contrasts with it, (K m, m).
            blocks = full.astype(np.float64).reshape(n_levels, m, n_levels, m).transpose(0, 2, 1, 3)
            own = blocks[np.arange(n_levels), np.arange(n_levels)]
            both = blocks + blocks.transpose(1, 0, 2, 3)
            self._contrasts = list((own[:, None] + own - both).reshape(n_levels, n_levels * m, m))

    def _contrast_variance(self, x: Float, best: int) -> Float:
        """Posterior variance of quality_a - quality_best for every arm a, float64 (K,)."""
        if self._contrasts:
            contrast: Float = self._contrasts[best].dot(x).reshape(-1, len(x)).dot(x)
            return np.maximum(contrast, self._zeros, out=contrast)
        layout = self.layout  # `covariance` is minus twice that with the best arm
        i, j = self._squares
        variance: Float = self._variance.dot(x[i] * x[j])
        first, *others = self._levels_of[best]
        with_best = self._of_level[first].dot(x)
        for level in others:
            with_best += self._of_level[level].dot(x)
        if layout.n_pairs:
            with_best += layout.pair_of[best].dot(self._of_pair)
            at = len(with_best) - layout.n_pairs
            covariance = layout.pair_of.dot(with_best[at:])
            covariance += layout.level_of.dot(with_best[:at].reshape(-1, len(x)).dot(x))
        else:
            covariance = with_best.reshape(-1, len(x)).dot(x)
            if not self._one_knob:
                covariance = layout.level_of.dot(covariance)
        covariance += variance[best]
        variance += covariance
        return np.maximum(variance, self._zeros, out=variance)

    def score(self, x: NDArray[np.floating], eligible: NDArray[np.bool_] | None = None) -> Scores:
        """Expected utility and propensity of every arm.

        Parameters
        ----------
        x : float array (d,)
            Encoded context; the last entry is 1.
        eligible : bool array (K,), optional
            Arms allowed; all by default.

        Raises
        ------
        ValueError
            When x has another length, is not finite or does not end with 1, or no arm is eligible.
        """
        utility, propensity, greedy = self.weigh(x, eligible)
        return Scores(utility, np.array(propensity) if isinstance(propensity, list) else propensity, greedy)

    def weigh(self, x: NDArray[np.floating], eligible: NDArray[np.bool_] | None = None) -> Weighed:
        """Do what `score` does, without making an array of a few propensities."""
        x64 = self._checked(x)
        n_arms = count = len(self._weights)
        if eligible is not None:
            if eligible.shape != (n_arms,):
                raise ValueError(f"eligible has shape {eligible.shape}, the policy needs ({n_arms},)")
            count = int(np.count_nonzero(eligible))
            if not count:
                raise ValueError("no arm is eligible")
        inter = x64 if self._columns is None else x64[self._columns]
        utility: Float = (self._weights_in(x) if self._tenants else self._weights).dot(x64)
        if self._squares_of is not None:
            utility = utility - self._squares_of.charge(x, x64)
        if self._few and self._kind == "maillard":
            return self._few_weighed(utility, inter, None if eligible is None else eligible.tolist(), count)
        if self._zeros.dot(utility) != 0.0:  # nothing finite times 0 is anything else
            raise ValueError("the context makes a utility that is not finite")
        allowed = utility if eligible is None else np.where(eligible, utility, -np.inf)
        greedy = int(allowed.argmax())
        if allowed[self._baseline] == allowed[greedy]:
            greedy = self._baseline
        if self._explores and count > 1:
            chance = self._chances(utility, greedy, inter, eligible)
            if eligible is not None:
                chance = np.where(eligible, chance, 0.0)
        elif self._kind == "igw" and count > 1:
            chance = exploration.inverse_gap(
                utility[greedy] - utility, self.snapshot.exploration_scale, greedy, eligible
            )
        elif self._kind == "softmax" and count > 1:
            chance = exploration.softmax(allowed[greedy] - allowed, self.snapshot.exploration_scale)
        else:
            chance = np.zeros(n_arms)
            chance[greedy] = 1.0
        chance *= (1.0 - self._floor) / np.add.reduce(chance)
        if self._floor > 0:
            chance += self._even if eligible is None else self._floor / count * eligible
        return Weighed(utility, chance, greedy)

    def _few_weighed(self, utility: Float, inter: Float, eligible: list[bool] | None, count: int) -> Weighed:
        """Maillard sampling over a few arms, number by number: `exploration.maillard`, and the rest of `weigh`."""
        values: list[float] = utility.tolist()
        if not isfinite(sum(values)) and not all(map(isfinite, values)):
            raise ValueError("the context makes a utility that is not finite")
        allowed = values if eligible is None else [v if e else -inf for v, e in zip(values, eligible, strict=True)]
        top = max(allowed)
        greedy = self._baseline if allowed[self._baseline] == top else allowed.index(top)
        if self._explores and count > 1:
            doubt, tiny = self._two_width2, exploration.TINY
            variances: list[float] = self._contrast_variance(inter, greedy).tolist()
            # What is not eligible is an infinite gap away.
            ends = [-(top - v) * (top - v) / (doubt * s + tiny) for v, s in zip(allowed, variances, strict=True)]
            chance = [exp(end) for end in ends]
            if self._seconds:
                ratio = self._ratio
                chance = [c + w * exp(end * ratio) for c, w, end in zip(chance, self._seconds, ends, strict=True)]
        else:
            chance = [0.0] * len(values)
            chance[greedy] = 1.0
        share, even = (1.0 - self._floor) / sum(chance), self._floor / count
        if eligible is None:
            return Weighed(utility, [share * c + even for c in chance], greedy)
        return Weighed(utility, [share * c + even if e else 0.0 for c, e in zip(chance, eligible, strict=True)], greedy)

    def _chances(self, utility: Float, best: int, inter: Float, eligible: NDArray[np.bool_] | None) -> Float:
        """Weights of the arms by a rule that looks at how doubtful they are."""
        if self._kind == "maillard":
            variance = self._contrast_variance(inter, best)
            gap = utility[best] - utility
            return exploration.maillard(gap, variance, self._two_widths2, self._tiny, self._second, self._ratio)
        if self._kind == "thompson":
            deviation = self._width * np.sqrt(self._contrast_variance(inter, best))
            return exploration.thompson(utility[best] - utility, deviation, best, eligible)
        i, j = self._squares
        own: Float = self._variance.dot(inter[i] * inter[j])
        return exploration.optimism(utility, self._width * np.sqrt(np.maximum(own, self._zeros)), eligible)

    def components(self, x: NDArray[np.floating]) -> Components:
        """Expected quality, cost, latency and failures of every arm; x and ValueError as in `score`."""
        x64 = self._checked(x)
        made = []
        for theta in self._heads():
            shared, own = self.layout.by_arm(theta)
            made.append(own @ x64[self.layout.columns] + shared @ x64)
        return Components(*made)

    def _checked(self, x: NDArray[np.floating]) -> Float:
        if x.shape != (self._dim,):
            raise ValueError(f"x has shape {x.shape}, the policy needs ({self._dim},)")
        if x[-1] != 1.0:
            raise ValueError(f"the last entry of x is {x[-1]}, not 1: no encoded context")
        return x.astype(np.float64) if self._encoder is None else self._encoder(x)


def draw(propensity: Float | list[float], u: float) -> int:
    """Index of the arm that a uniform number u in [0, 1) picks under these propensities; never one of propensity 0."""
    if isinstance(propensity, list) or len(propensity) <= _FEW_ARMS:
        sums = list(accumulate(propensity if isinstance(propensity, list) else propensity.tolist()))
        index = bisect_right(sums, u * sums[-1])
    else:
        cumulative = np.add.accumulate(propensity)
        index = int(cumulative.searchsorted(u * cumulative[-1], side="right"))
    if index >= len(propensity) or propensity[index] <= 0:
        index = int(np.flatnonzero(np.asarray(propensity) > 0)[-1])
    return index
