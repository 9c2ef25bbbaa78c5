"""Logged decisions as columns, and the policies that can be asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions that were drawn, with what they earned; all arrays have n rows.

    Only decisions that were *drawn* belong here: those whose propensity is below 1. What was not drawn (control group,
    shadow, fallback, an arm that a session kept) tells nothing about other arms, and has propensity 1.

    Parameters
    ----------
    arm : int64 array (n,)
        Index of the arm taken.
    propensity : float64 array (n,)
        Probability with which it was drawn, 0 < p <= 1.
    reward : float64 array (n,)
        Utility earned.
    eligible : bool array (n, K)
        Arms allowed.

    Raises
    ------
    ValueError
        When there are no rows, shapes differ, an arm is not one of the K or a number is out of range.
    """

    arm: NDArray[np.int64]
    propensity: Float
    reward: Float
    eligible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.arm)
        if not n:
            raise ValueError("no decision to learn from")
        if self.propensity.shape != (n,) or self.reward.shape != (n,) or self.eligible.shape[:1] != (n,):
            raise ValueError("arm, propensity, reward and eligible must have the same number of rows")
        if self.arm.min() < 0 or self.arm.max() >= self.eligible.shape[1]:
            raise ValueError(f"arm must be an index of the {self.eligible.shape[1]} arms")
        if not (self.propensity.min() > 0 and self.propensity.max() <= 1):
            raise ValueError("propensity must be above 0 and at most 1")
        if not np.isfinite(self.reward).all():
            raise ValueError("reward must be finite")
        if not self.eligible.any(axis=1).all():
            raise ValueError("every decision needs an eligible arm")

    def __len__(self) -> int:
        """Number of decisions."""
        return len(self.arm)


def uniform(eligible: NDArray[np.bool_]) -> Float:
    """Probabilities (n, K) of a policy that takes every eligible arm equally often."""
    shares: Float = eligible / eligible.sum(axis=1, keepdims=True)
    return shares


def always(arm: int, eligible: NDArray[np.bool_]) -> Float:
    """Probabilities (n, K) of a policy that takes one arm, or, where it is not allowed, the first that is.

    That is what a router does with a baseline.
    """
    chosen = np.where(eligible[:, arm], arm, eligible.argmax(axis=1))
    return _one_hot(chosen, eligible.shape[1])


def greedy(weights: Float, features: NDArray[np.floating], eligible: NDArray[np.bool_]) -> Float:
    """Probabilities (n, K) of the policy that takes the eligible arm of the highest utility.

    Parameters
    ----------
    weights : float64 array (K, d)
        Utility of an arm per feature.
    features : float array (n, d)
        Encoded contexts.
    eligible : bool array (n, K)
        Arms allowed.
    """
    return best(features.astype(np.float64) @ weights.T, eligible)


def best(utility: Float, eligible: NDArray[np.bool_]) -> Float:
    """Probabilities (n, K) of the policy that takes the eligible arm of the highest of these utilities (n, K)."""
    return _one_hot(np.where(eligible, utility, -np.inf).argmax(axis=1), eligible.shape[1])


def _one_hot(chosen: NDArray[np.int64], n_arms: int) -> Float:
    made = np.zeros((len(chosen), n_arms))
    made[np.arange(len(chosen)), chosen] = 1.0
    return made


def arm_means(decisions: Decisions) -> Float:
    """A model of the rewards (n, K): the mean of each arm over all *other* decisions.

    Leaving the decision itself out keeps the model independent of what it is to correct, so DR stays unbiased. An arm
    that nobody else took is given the mean of all others.
    """
    n, k = decisions.eligible.shape
    sums = np.bincount(decisions.arm, decisions.reward, k)
    counts: Float = np.bincount(decisions.arm, minlength=k).astype(np.float64)
    rows = np.arange(n)
    sums_without: Float = np.tile(sums, (n, 1))
    counts_without: Float = np.tile(counts, (n, 1))
    sums_without[rows, decisions.arm] -= decisions.reward
    counts_without[rows, decisions.arm] -= 1.0
    overall = (decisions.reward.sum() - decisions.reward) / max(n - 1, 1)
    seen = counts_without > 0
    model: Float = np.where(seen, sums_without / np.where(seen, counts_without, 1.0), overall[:, None])
    return model
