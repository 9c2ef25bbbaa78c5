"""The dual problem of a policy under ceilings: the prices at which its decisions use what is left (`learners.pacing`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from steersman.snapshot import HEADS, TOOL_CALLS, TOOL_WEIGHTS, Multiplier, PolicySnapshot

from .batch_scorer import BatchScorer
from .pacing import Pacer

Float = NDArray[np.float64]

HIGHEST = 1e3
"""Utility that one ceiling's worth may cost at most."""

_STEPS, _FEWER = 18, 12


class Dual:
    """The prices of a pacer's limits under a policy: those at which its contexts use what its accounts leave.

    Parameters
    ----------
    pacer : Pacer
        Which has seen a reward.
    scorer : BatchScorer
        The policy, with no charge.

    Attributes
    ----------
    x : float64 array (n, d)
        The contexts.
    heads : dict of str to float64 array (n, K)
        What the arms are expected to use there, by component.
    prices : float64 array
        Of the limits, in utility a ceiling.
    """

    def __init__(self, pacer: Pacer, scorer: BatchScorer) -> None:
        self.x = pacer.contexts
        self.heads = dict(zip(HEADS, scorer.predictions(self.x), strict=True))
        if TOOL_WEIGHTS in scorer.snapshot.tensors:
            self.heads[TOOL_CALLS] = scorer.tool_calls(self.x)
        self._limits = pacer.limits
        self._demand = Demand(scorer, self.x)
        self._charged = self._charges(self.heads)
        self._used = [pacer.use(i, charge) for i, charge in enumerate(self._charged)]
        self._target = [pacer.target(limit) for limit in self._limits]
        self._slow = [pacer.slow(limit) for limit in self._limits]
        self._most = [pacer.most(limit) for limit in self._limits]
        self.prices = np.zeros(len(self._limits))

    def solve(self, base: Float | None = None) -> None:
        """Find the prices, beside a charge (n, K) that others make."""
        prices, charged = self.prices, self._charged
        for _ in range(1 if len(prices) == 1 else 3):
            for i, charge in enumerate(charged):
                start = np.zeros_like(charge) if base is None else base
                others = sum((prices[j] * charged[j] for j in range(len(prices)) if j != i), start)

                def demand(price: float, others: Float = others, charge: Float = charge, i: int = i) -> float:
                    return self._demand.mean(others + price * charge, self._used[i])

                prices[i] = _root(demand, self._target[i])
                # One look tells whether the bound is below it, which is seldom: demand falls with the price.
                if prices[i] > 0.0 and demand(prices[i] / self._most[i]) <= self._slow[i]:
                    prices[i] = min(prices[i], self._most[i] * _root(demand, self._slow[i], _FEWER))

    def charge_on(self, other: Dual) -> Float:
        """What these prices charge the contexts of another, (n, K)."""
        charges = self._charges(other.heads)
        return np.asarray(sum((p * c for p, c in zip(self.prices, charges, strict=True)), np.zeros_like(charges[0])))

    def multipliers(self, snapshot: PolicySnapshot) -> tuple[Multiplier, ...]:
        """The prices as utility lost per scale of the component."""
        scale = {term.component: term.scale for term in snapshot.objective}
        return tuple(
            Multiplier(limit.component, float(price) * scale.get(limit.component, 1.0) / limit.ceiling)
            for limit, price in zip(self._limits, self.prices, strict=True)
        )

    def _charges(self, heads: Mapping[str, Float]) -> list[Float]:
        """What the arms are charged by each limit at a price of 1, (n, K)."""
        return [np.maximum(heads[limit.component], 0.0) / limit.ceiling for limit in self._limits]


class Demand:
    """What a policy uses in the mean over some contexts when its arms are charged for.

    Parameters
    ----------
    scorer : BatchScorer
        The policy, with no charge.
    x : float64 array (n, d)
        The contexts.
    """

    def __init__(self, scorer: BatchScorer, x: Float) -> None:
        self._scorer = scorer
        self._x = x
        self._utility = scorer.utilities(x)
        self._rows = np.arange(len(x))
        # By arm: the variances of its contrasts in the rows that it was the best of so far, since prices come back to it, and at which of them a row is.
        self._doubts: dict[int, tuple[Float, NDArray[np.int64]]] = {}

    def propensities(self, charge: Float) -> Float:
        """Propensities (n, K) once `charge` (n, K) is subtracted from the utilities."""
        utility = self._utility - charge
        best = utility.argmax(axis=1)
        gap = utility[self._rows, best][:, None] - utility
        doubt = np.empty_like(utility)
        for arm in np.flatnonzero(np.bincount(best)).tolist():
            mine = best == arm
            known, at = self._doubts.get(arm, (utility[:0], np.full(len(utility), -1)))
            if len(rows := np.flatnonzero(mine & (at < 0))):
                at[rows] = len(known) + np.arange(len(rows))
                known = np.concatenate([known, self._scorer.contrasts(self._x[rows], arm)])
                self._doubts[arm] = known, at
            doubt[mine] = known[at[mine]]
        return self._scorer.rule(gap, doubt)

    def mean(self, charge: Float, used: Float) -> float:
        """Mean of `used` (n, K) under the propensities."""
        return float((self.propensities(charge) * used).sum(axis=1).mean())


def _root(demand: Callable[[float], float], target: float, steps: int = _STEPS) -> float:
    """Lowest price at which the demand, which falls with the price, is no more than the target."""
    if demand(0.0) <= target:
        return 0.0
    low, high = 1e-5, HIGHEST
    if demand(high) > target:
        return high
    for _ in range(steps):
        middle = (low * high) ** 0.5
        if demand(middle) > target:
            low = middle
        else:
            high = middle
    return high
