"""The head of tool calls: how many a decision leads to, by arm and context. Kept only while a ceiling limits them.

It is a head like those of cost and latency (`learners.policy_learner`), but beside them: most policies have no use for it, and their
sums, states and snapshots stay what they are. So it begins with the first reward after the ceiling was set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman.features import FeatureSpec
from steersman.layout import Layout

from .moments import Moments
from .posteriors import solve_heads
from .priors import COMPONENT_PRIOR, precision

Float = NDArray[np.float64]

MOST = 1000.0
"""Tool calls of one decision beyond which more teach no more."""


class ToolHead:
    """See the module.

    Parameters
    ----------
    layout : Layout
        Of the policy's heads.
    features : FeatureSpec
    """

    def __init__(self, layout: Layout, features: FeatureSpec) -> None:
        self._layout = layout
        self._precisions = precision(layout, features.kinds, COMPONENT_PRIOR)
        self._moments = Moments(layout.n_arms, layout.dim, 1)

    def add(self, x: list[float], arm: int, calls: float, weight: float) -> None:
        """Learn from one reward.

        Parameters
        ----------
        x : list of float
            Encoded context, d entries.
        arm : int
        calls : float
            Tool calls.
        weight : float
            What the reward counts.
        """
        counted = min(max(calls, 0.0), MOST)
        self._moments.add(
            np.array([x], dtype=np.float32),
            np.array([[counted]]),
            np.array([arm]),
            np.array([True]),
            np.array([weight]),
        )

    @property
    def counts(self) -> Float:
        """Events' worth of evidence per arm, float64 (K,)."""
        return self._moments.counts

    def shorten(self, factors: Float) -> None:
        """Let what is known of each arm count less: `factors` is float64 (K,)."""
        self._moments.shorten(factors)

    def theta(self) -> Float:
        """Posterior mean of the parameters, float64 (D,), in calls; FloatingPointError when they cannot be solved."""
        return solve_heads(self._moments, self._layout, self._moments.sums[:, 0], slice(0, 1), self._precisions).theta[
            :, 0
        ]

    def dump(self) -> tuple[list[int], Float]:
        """Return all that `load` needs: the arms that were seen, and their sums (float64, flat)."""
        arms = np.flatnonzero(self._moments.sums[:, 0, -1])
        return arms.tolist(), self._moments.sums[arms, 0].ravel()

    def load(self, arms: list[int], numbers: Float) -> None:
        """Inverse of `dump`."""
        self._moments.sums[arms, 0] = numbers.reshape(len(arms), self._moments.width)
