"""The heads over z: an encoder, and the sums of the rewards that it has encoded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from learners.policy_learner import PolicyLearner
from learners.prediction import predict
from learners.spec import PolicySpec
from steersman.encoder import Encoder, latent_features

from .contest import squared_errors
from .job import Tensors

Float = NDArray[np.float64]


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
        latent = replace(spec, features=latent_features(self._encoder.width), learner="linear", shards=1)
        self.linear = PolicyLearner(latent)
        self.theta: Float | None = None

    def encode(self, x: NDArray[np.float32]) -> Float:
        """Encode N contexts, float64 (N, h + 1), one by one as the router does: a batch leaves the bits of its rows."""
        return np.array([self._encoder(row) for row in x]).reshape(len(x), self._encoder.width + 1)

    def add(self, z: Float, y: NDArray[np.floating], arms: NDArray[np.int64], rated: NDArray[np.bool_]) -> None:
        """Learn from N encoded rewards."""
        self.linear.moments.add(z, y.astype(np.float64), arms, rated)

    def solve(self) -> None:
        """Take up what was learned, for `errors`."""
        self.theta = solved(self.linear)

    def errors(self, z: Float, y: NDArray[np.floating], arms: NDArray[np.int64], rated: NDArray[np.bool_]) -> Float:
        """Squared errors, float64 (N, 4), on encoded rewards, by the parameters last solved."""
        if self.theta is None:
            raise ValueError("nothing has been solved")
        return squared_errors(predict(self.linear.layout, self.theta, z, arms), y, rated)


def solved(learner: PolicyLearner) -> Float:
    """A learner's parameters, float64 (D, 4), a column per head, in scales."""
    quality, others = learner.posteriors()
    return np.concatenate([quality.theta, others.theta], axis=1)
