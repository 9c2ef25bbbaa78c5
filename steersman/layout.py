"""How the parameters of a factored policy are numbered: derived from arms and features alone.

The parameter vector of a head (D entries) is, in this order

    shared       d entries: what every arm has in common
    levels       for each knob in order, for each of its levels: m entries, one per *interacting* column of x
    pairs        with two knobs or more: one constant per pair of levels of two knobs that occurs in some arm

so the value of an arm is ``shared . x + sum over its levels (theta_kl . x[columns]) + sum over its pairs``.
All columns interact as long as D stays within `MAX_PARAMETERS`; beyond that only the categorical columns and the constant do,
and if that is still too many only the constant.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .arms import ArmSpace
from .features import FeatureSpec

MAX_PARAMETERS = 700
"""The covariance of so many takes 1 MB, which is what Kafka lets a message be."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Numbering of the parameters of a head.

    Attributes
    ----------
    dim : int
        d, length of x.
    columns : int64 array (m,)
        Columns of x that interact with the levels, ascending; the last is the constant's.
    level_of : float64 array (K, L)
        1 where the arm has the level (levels of all knobs, in knob order).
    pair_of : float64 array (K, P)
        1 where the arm has the pair of levels.
    """

    dim: int
    columns: NDArray[np.int64]
    level_of: NDArray[np.float64]
    pair_of: NDArray[np.float64]

    @property
    def n_arms(self) -> int:
        """K."""
        return len(self.level_of)

    @property
    def n_levels(self) -> int:
        """L, levels of all knobs together."""
        return int(self.level_of.shape[1])

    @property
    def n_pairs(self) -> int:
        """P, pairs of levels."""
        return int(self.pair_of.shape[1])

    @property
    def arm_size(self) -> int:
        """Parameters that differ between arms: L m + P."""
        return self.n_levels * len(self.columns) + self.n_pairs

    @property
    def size(self) -> int:
        """D, all parameters."""
        return self.dim + self.arm_size

    def by_arm(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Parameters (D,) of a head as those that all arms share (d,) and each arm's own (K, m), its pairs within its constant."""
        d, m = self.dim, len(self.columns)
        at = d + self.n_levels * m
        own = self.level_of @ theta[d:at].reshape(self.n_levels, m)
        own[:, -1] += self.pair_of @ theta[at:]
        return theta[:d], own

    def phi(self, x: NDArray[np.floating], arm: int) -> NDArray[np.float64]:
        """The feature vector phi(x, arm), float64 (D,): an arm's value is ``phi @ theta``. For tests and small jobs."""
        x64 = np.asarray(x, dtype=np.float64)
        interactions = np.outer(self.level_of[arm], x64[self.columns]).ravel()
        return np.concatenate([x64, interactions, self.pair_of[arm]])


def make_layout(arms: ArmSpace, features: FeatureSpec) -> Layout:
    """Layout of a policy with these arms and features."""
    return _layout(arms, features)


@lru_cache(maxsize=256)
def _layout(arms: ArmSpace, features: FeatureSpec) -> Layout:
    counts = [len(levels) for levels in arms.knobs.values()]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    level_of = np.zeros((len(arms), sum(counts)))
    level_of[np.arange(len(arms))[:, None], starts + arms.levels] = 1.0
    pairs: list[NDArray[np.float64]] = []
    for k, other in itertools.combinations(range(len(counts)), 2):
        for one in range(counts[k]):
            for two in range(counts[other]):
                column = level_of[:, starts[k] + one] * level_of[:, starts[other] + two]
                if column.any():
                    pairs.append(column)
    pair_of = np.stack(pairs, axis=1) if pairs else np.zeros((len(arms), 0))
    dim = features.dim
    every = np.arange(dim, dtype=np.int64)
    categorical = np.array(
        [i for i, kind in enumerate(features.kinds) if kind in ("categorical", "constant")], dtype=np.int64
    )
    columns = every[-1:]
    for candidate in (every, categorical):
        if dim + sum(counts) * len(candidate) + len(pairs) <= MAX_PARAMETERS:
            columns = candidate
            break
    for array in (columns, level_of, pair_of):
        array.setflags(write=False)
    return Layout(dim, columns, level_of, pair_of)
