"""The dual problem of a policy under ceilings: the prices at which its decisions use what is left (`learners.pacing`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from steersman.snapshot import CHARGED, HEADS, TOOL_CALLS, TOOL_WEIGHTS, Multiplier, PolicySnapshot

from .batch_scorer import BatchScorer
from .pacing import Pacer

Float = NDArray[np.float64]

HIGHEST = 1e3
"""Utility that one ceiling's worth may cost at most."""

FAINT = 1e-6
"""Utility below which no square is charged: arms are as good as equal, and the centre of so flat a curve would lie anywhere."""

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
        Of the limits, in utility a ceiling: all that there is to pay under an upper limit, and what agents pay that know of nothing else under a steady ceiling.
    """

    def __init__(self, pacer: Pacer, scorer: BatchScorer) -> None:
        self.x = pacer.contexts
        self.heads = dict(zip(HEADS, scorer.predictions(self.x), strict=True))
        if TOOL_WEIGHTS in scorer.snapshot.tensors:
            self.heads[TOOL_CALLS] = scorer.tool_calls(self.x)
        self._limits = pacer.limits
        self._demand = Demand(scorer, self.x)
        self._shuns = [self._demand.span * pacer.shun(limit) if limit.steady else 0.0 for limit in self._limits]
        self._linear: list[float | None] = [None] * len(self._limits)  # prices beside the squares, where there are any
        self._charged = self._charges(self.heads)
        self._used = [pacer.use(i, charge) for i, charge in enumerate(self._charged)]
        self._target = [pacer.target(limit) for limit in self._limits]
        self._slow = [pacer.slow(limit) for limit in self._limits]
        self._most = [pacer.most(limit) for limit in self._limits]
        self.prices = np.zeros(len(self._limits))

    def solve(self, base: Float | None = None) -> None:
        """Find the prices, beside a charge (n, K) that others make."""
        charged = self._charged
        start = np.zeros_like(charged[0]) if base is None else base
        for _ in range(1 if len(charged) == 1 else 3):
            for i, charge in enumerate(charged):
                others = sum((self._charge(j, one) for j, one in enumerate(charged) if j != i), start)

                def demand(price: float, others: Float = others, charge: Float = charge, i: int = i) -> float:
                    return self._demand.mean(others + price * charge, self._used[i])

                self.prices[i] = self._price(i, demand)
                if (shun := self._shuns[i]) > FAINT:
                    self._linear[i] = None
                    # Where the policy uses less by itself, it is no duty to spend; nor more than it would by itself, whatever is saved up.
                    if (free := demand(0.0)) > 1.0:
                        curved = others + shun * (charge - 1.0) ** 2
                        self._linear[i] = _crossing(partial(demand, others=curved), min(self._target[i], free))

    def _price(self, i: int, demand: Callable[[float], float]) -> float:
        price = _root(demand, self._target[i])
        # One look tells whether the bound is below it, which is seldom: demand falls with the price.
        if price > 0.0 and demand(price / self._most[i]) <= self._slow[i]:
            price = min(price, self._most[i] * _root(demand, self._slow[i], _FEWER))
        return price

    def _charge(self, i: int, charge: Float) -> Float:
        """What a limit charges those that use so much of it (n, K) at a price of 1."""
        linear = self._linear[i]
        return self.prices[i] * charge if linear is None else self._shuns[i] * (charge - 1.0) ** 2 + linear * charge

    def charge_on(self, other: Dual) -> Float:
        """What these prices charge the contexts of another, (n, K)."""
        charges = self._charges(other.heads)
        return np.asarray(sum((self._charge(i, one) for i, one in enumerate(charges)), np.zeros_like(charges[0])))

    def multipliers(self, snapshot: PolicySnapshot) -> tuple[Multiplier, ...]:
        """The prices as utility lost per scale of the component."""
        scale = {term.component: term.scale for term in snapshot.objective}
        return tuple(
            Multiplier(limit.component, float(price) * scale.get(limit.component, 1.0) / limit.ceiling)
            for limit, price in zip(self._limits, self.prices, strict=True)
        )

    def squares(self) -> Float:
        """Rows of the tensor ``ceilings.square`` for these limits, float64 (C, 2): weights and centres by component, which make of the multipliers' linear charge the one that was solved for."""
        made = np.zeros((len(CHARGED), 2))
        for limit, price, shun, linear in zip(self._limits, self.prices, self._shuns, self._linear, strict=True):
            if linear is not None:
                centre = 1.0 - (linear - price) / (2.0 * shun)
                made[CHARGED.index(limit.component)] = shun / limit.ceiling**2, centre * limit.ceiling
        return made

    def _charges(self, heads: Mapping[str, Float]) -> list[Float]:
        """What the arms are charged by each limit at a price of 1, (n, K)."""
        return [
            (heads[one.component] if one.steady else np.maximum(heads[one.component], 0.0)) / one.ceiling
            for one in self._limits
        ]


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

    @property
    def span(self) -> float:
        """Mean over the contexts of the best arm's utility less the worst one's."""
        return float((self._utility.max(axis=1) - self._utility.min(axis=1)).mean())

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


def _crossing(demand: Callable[[float], float], target: float) -> float:
    """A price, maybe below 0, at which the demand, which falls with the price, comes to the target."""
    if demand(0.0) > target:
        return _root(demand, target)
    return -_root(lambda paid: 2.0 * target - demand(-paid), target)
