"""The heads over z: an encoder, and the sums of the rewards that it has encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from learners.pending import Rows
from learners.policy_learner import PolicyLearner
from learners.prediction import predict
from learners.spec import PolicySpec
from steersman.encoder import Encoder, latent_features

from .contest import squared_errors
from .job import Tensors
from .replay import Change

Float = NDArray[np.float64]


class _Linear(PolicyLearner):
    ODDS: ClassVar[bool] = False  # z is learned, and what is between its entries and quality may be steep


class LatentHead:
    """Bayesian linear heads over z, updated reward by reward.

    Parameters
    ----------
    spec : PolicySpec
        The policy.
    tensors : dict
        The encoder's.

    Attributes
    ----------
    tensors
        As given.
    linear : PolicyLearner
        The heads: those of a policy whose features are z.
    theta : float64 array (D, 4) or None
        Parameters as solved when the present block began.
    """

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        self.tensors = tensors
        self._encoder = Encoder(tensors)
        self.linear: PolicyLearner = _Linear(self._latent(spec))
        self.theta: Float | None = None

    def _latent(self, spec: PolicySpec) -> PolicySpec:
        return replace(spec, features=latent_features(self._encoder.width), learner="linear", shards=1)

    def _encode(self, x: NDArray[np.float32]) -> Float:
        """Encode N contexts, float64 (N, h + 1), one by one as the router does: a batch leaves the bits of its rows."""
        return np.array([self._encoder(row) for row in x]).reshape(len(x), self._encoder.width + 1)

    def add(self, rows: Rows) -> None:
        """Learn from rewards."""
        if len(rows.x):
            z, y = self._encode(rows.x), rows.y.astype(np.float64)
            self.linear.moments.add(z, y, rows.arms, rows.rated, rows.weights.astype(np.float64))

    def change(self, change: Change) -> None:
        """Let what was learned count less, or costs be others."""
        moments = self.linear.moments
        (moments.reprice if change.priced else moments.shorten)(change.factors)

    def take_settings(self, spec: PolicySpec) -> None:
        """Go on under other settings; prices have a `change` of their own."""
        moments = self.linear.moments
        self.linear = _Linear(self._latent(spec))
        self.linear.moments = moments

    def solve(self) -> None:
        """Take up what was learned, for `errors`."""
        self.theta = solved(self.linear)

    def errors(self, rows: Rows) -> Float:
        """Squared errors, float64 (N, 4), by the parameters last solved."""
        if self.theta is None:
            raise ValueError("nothing has been solved")
        return squared_errors(predict(self.linear.layout, self.theta, self._encode(rows.x), rows.arms), rows)


def solved(learner: PolicyLearner) -> Float:
    """A learner's parameters, float64 (D, 4), a column per head, in scales."""
    quality, others = learner.posteriors()
    return np.concatenate([quality.theta, others.theta], axis=1)
