"""What is played: contexts, and the outcome of every arm in each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learners.spec import PolicySpec

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scenario:
    """Requests with the outcome of every arm, so that any choice can be replayed and judged.

    Attributes
    ----------
    name : str
    spec : PolicySpec
        Arms, features and the weights of the utility; everything else as by default.
    x : float32 array (n, d)
        Encoded contexts, the same for every learner; the last column is 1.
    quality : float64 array (n, K)
        What the chosen arm shows.
    cost, latency : float64 array (n, K)
        Likewise; unit: millionths of a US dollar, microseconds.
    truth : float64 array (n, K), optional
        Expected utilities, where outcomes are drawn and expectations are known: learners are judged by these.
    """

    name: str
    spec: PolicySpec
    x: NDArray[np.float32]
    quality: Float
    cost: Float
    latency: Float
    truth: Float | None = None

    @property
    def utility(self) -> Float:
        """What the chosen arm earned, (n, K)."""
        weights, scales = self.spec.reward.weights, self.spec.reward.scales
        return (
            weights.quality * self.quality
            - weights.cost * self.cost / scales.cost_micro_usd
            - weights.latency * self.latency / scales.latency_us
        )

    @property
    def judged(self) -> Float:
        """Utilities that learners are judged by, (n, K)."""
        return self.utility if self.truth is None else self.truth

    @property
    def best_fixed(self) -> int:
        """The arm of the highest mean utility, known in hindsight."""
        return int(self.judged.mean(axis=0).argmax())

    def in_order(self, seed: int) -> Scenario:
        """The same requests in a seeded random order."""
        return self.rows(np.random.default_rng(seed).permutation(len(self.x)))

    def drifted(self) -> Scenario:
        """Best and middle arm trade outcomes half-way: the one that paid best so far no longer does."""
        by_utility = np.argsort(-self.judged.mean(axis=0), kind="stable")
        best, other = int(by_utility[0]), int(by_utility[max(1, len(by_utility) // 2)])
        columns = np.arange(len(by_utility))
        columns[[best, other]] = other, best
        half = len(self.x) // 2

        def swap(table: Float) -> Float:
            return np.concatenate([table[:half], table[half:][:, columns]])

        return replace(
            self,
            quality=swap(self.quality),
            cost=swap(self.cost),
            latency=swap(self.latency),
            truth=None if self.truth is None else swap(self.truth),
        )

    def rows(self, rows: NDArray[np.int64]) -> Scenario:
        """Some of the requests, by number."""
        return replace(
            self,
            x=self.x[rows],
            quality=self.quality[rows],
            cost=self.cost[rows],
            latency=self.latency[rows],
            truth=None if self.truth is None else self.truth[rows],
        )
