"""The arithmetic of `steersman.scoring` for many contexts at once, for those who plan with a policy instead of following it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman import exploration
from steersman.scoring import Scorer
from steersman.snapshot import TOOL_WEIGHTS

Float = NDArray[np.float64]


class BatchScorer(Scorer):
    """A `Scorer` that also tells what its snapshot expects of n contexts: x is always (n, d), as the features encode it."""

    def utilities(self, x: NDArray[np.floating]) -> Float:
        """Expected utilities of all arms in n contexts: x is (n, d), the result float64 (n, K)."""
        x64 = self._encoded(x)
        made: Float = x64.dot(self._weights.T)
        if self._tenants:
            for i, row in enumerate(x):
                made[i] = self._weights_in(row).dot(x64[i])
        if self._squares_of is not None:
            for i, row in enumerate(x):
                made[i] -= self._squares_of.charge(row, x64[i])
        return made

    def predictions(self, x: NDArray[np.floating]) -> Float:
        """Expected components of all arms in n contexts: x is (n, d), the result float64 (4, n, K), in the order of `HEADS`."""
        x64 = self._encoded(x)
        made = []
        for theta in self._heads():
            shared, own = self.layout.by_arm(theta)
            made.append(x64[:, self.layout.columns].dot(own.T) + x64.dot(shared)[:, None])
        return np.stack(made)

    def tool_calls(self, x: NDArray[np.floating]) -> Float:
        """Expected tool calls of all arms in n contexts: x is (n, d), the result float64 (n, K); KeyError where nothing limits them."""
        x64 = self._encoded(x)
        shared, own = self.layout.by_arm(self.snapshot.tensors[TOOL_WEIGHTS].astype(np.float64))
        return np.asarray(x64[:, self.layout.columns].dot(own.T) + x64.dot(shared)[:, None])

    def contrasts(self, x: NDArray[np.floating], best: int) -> Float:
        """Posterior variances of quality_a - quality_best in n contexts: x is (n, d), the result float64 (n, K); 0 where nothing is explored."""
        if not self._explores:
            return np.zeros((len(x), self.layout.n_arms))
        layout = self.layout
        inter = self._encoded(x)[:, layout.columns]
        i, j = self._squares
        variance: Float = (inter[:, i] * inter[:, j]).dot(self._variance.T)
        with_best = inter.dot(sum(self._of_level[level] for level in self._levels_of[best]).T)
        at = with_best.shape[1] - layout.n_pairs
        if layout.n_pairs:
            with_best += layout.pair_of[best].dot(self._of_pair)
        covariance = (with_best[:, :at].reshape(len(x), -1, inter.shape[1]) * inter[:, None, :]).sum(axis=2)
        covariance = covariance.dot(layout.level_of.T)
        if layout.n_pairs:
            covariance += with_best[:, at:].dot(layout.pair_of.T)
        found: Float = np.maximum(variance + covariance + variance[:, best][:, None], 0.0)
        found[:, best] = 0.0
        return found

    def rule(self, gap: Float, variance: Float) -> Float:
        """Propensities of n contexts, all arms allowed, from leads of the best arm and contrast variances, all (n, K).

        Of Thompson sampling and ucb only about: the one as Maillard sampling, the other as greedy.
        """
        if self._kind == "softmax":
            chance = exploration.softmax(gap, self.snapshot.exploration_scale)
        elif self._kind == "igw":
            chance = 1.0 / (gap.shape[1] + self.snapshot.exploration_scale * gap)
            best = np.arange(len(gap)), gap.argmin(axis=1)
            chance[best] = 0.0
            chance[best] = 1.0 - chance.sum(axis=1)
        else:
            doubt = variance.copy() if self._kind in ("maillard", "thompson") else np.zeros_like(variance)
            second = self._second if self._kind == "maillard" else None
            chance = exploration.maillard(gap, doubt, self._two_width2, second=second, ratio=self._ratio)
        chance *= (1.0 - self._floor) / chance.sum(axis=1, keepdims=True)
        return np.asarray(chance + self._floor / gap.shape[1])

    def _encoded(self, x: NDArray[np.floating]) -> Float:
        """What the heads take for n contexts (n, d): x, or the encoder's z."""
        if self._encoder is None:
            return x.astype(np.float64)
        return np.array([self._encoder(row) for row in x])
