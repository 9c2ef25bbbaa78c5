"""How near a ceiling the best controller could keep to it where ours stands: prices alone, snapshots now and then, rewards late.

It is told what ours has to learn or to guess: what each arm makes and uses in each context (heads taught with arms drawn evenly),
every context that will come, and what every decision on its way was meant to use. It sees the same rewards as late, sets a price
in the same snapshots, and settles what was overspent in as many decisions, and stays as far below the ceiling, as was best in
hindsight. What it misses is noise: from one snapshot to the news of it, `delay` to `delay` + `every` decisions are made of which nobody can know what they will use.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds import Run, World
from learners.batch_scorer import BatchScorer
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec
from steersman.snapshot import TOOL_WEIGHTS

Float = NDArray[np.float64]
Arms = np.ndarray[tuple[int], np.dtype[np.int64]]

HORIZONS = (2.0, 5.0, 10.0, 20.0, 40.0)
MARGINS = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)
"""Shares of the ceiling to stay below it."""

SHUNNED = (0.001, 0.01, 0.1, 100.0)
"""What a squared ceiling off is worth in quality to who shuns scatter; by the last, cost alone counts."""

FLOOR = 0.005
_TAUGHT, _CONTEXTS, _PRICES, _MOST = 4000, 400, 4000, 3.0


class Known(NamedTuple):
    """What the controller is told.

    Attributes
    ----------
    quality, use : float64 array (n, K)
        What is expected of the arms, the second in ceilings.
    used : float64 array (n, K)
        What they would come to use, of which it sees the chosen arm's when its reward comes.
    """

    quality: Float
    use: Float
    used: Float


def told(world: World, spec: PolicySpec, table: Float, ceiling: float, seed: int) -> Known:
    """Teach heads from arms drawn evenly, whose outcomes are in the world and whose use is in `table` (n, K)."""
    rng = np.random.default_rng((seed, 6))
    learner = PolicyLearner(spec)
    run = Run(world, learner)
    learner.learn_many([run.reward(i, int(rng.integers(len(spec.arms)))) for i in range(min(len(world.x), _TAUGHT))])
    scorer = BatchScorer(learner.snapshot(0))
    calls = TOOL_WEIGHTS in scorer.snapshot.tensors
    quality, cost, *_ = scorer.predictions(world.x)
    use = scorer.tool_calls(world.x) if calls else cost
    return Known(quality, np.maximum(use, 0.0) / ceiling, table / ceiling)


class Setting(NamedTuple):
    """How a controller steers.

    Attributes
    ----------
    margin : float
        Share of the ceiling to stay below it.
    horizon : float
        Decisions within which to settle what was overspent.
    shuns : float
        Quality given up for a decision that is expected to use one ceiling more or less than one.
    hears : bool
        Whether it is told of each decision as it is made, so that of those on their way it knows what their arms are expected to use in their contexts.
    """

    margin: float
    horizon: float
    shuns: float = 0.0
    hears: bool = False


BY_PRICE = tuple(Setting(margin, horizon) for margin in MARGINS for horizon in HORIZONS)
"""Those that steer as the learner does: by a price alone, from rewards alone. First those without a margin."""

CONSTANT = Setting(0.0, math.inf)
"""Who never pays back: one price for all decisions, so that its quality is what the contexts hold, whatever keeping the windows costs."""

FREE = tuple(
    Setting(0.0, horizon, shuns, hears) for hears in (False, True) for shuns in SHUNNED for horizon in HORIZONS
)
"""Those that choose arms for being near the ceiling, at any loss of quality; half of them are told of each decision as it is made."""


def controlled(known: Known, every: int, delay: int, seed: int, settings: Sequence[Setting] = BY_PRICE) -> list[Arms]:
    """The arms that it chooses, int (n,), with each setting; all from the same draws."""
    rng = np.random.default_rng((seed, 7))
    some = rng.choice(len(known.use), min(len(known.use), _CONTEXTS), replace=False)
    shuns, hears = np.array([one.shuns for one in settings]), np.array([one.hears for one in settings])
    prices = _Prices(known.quality[some], known.use[some], shuns)
    rng = np.random.default_rng((seed, 5))
    n, k = known.use.shape
    aim, horizon = 1.0 - np.array([one.margin for one in settings]), np.array([one.horizon for one in settings])
    arms = np.zeros((n, len(aim)), dtype=np.int64)
    late: deque[tuple[Float, Float]] = deque()
    account, planned, target, price = np.zeros_like(aim), np.zeros_like(aim), aim, prices.at(aim)
    for i in range(n):
        use = known.use[i]
        if i % every == 0 and len(late) > delay:
            while len(late) > delay:
                used, plan = late.popleft()
                account, planned = account + used - aim, planned - plan
            target = np.clip(aim - (account + planned) / horizon, 0.0, _MOST)
            price = prices.at(target)
        if rng.random() >= FLOOR:
            worth = known.quality[i] - shuns[:, None] * (use - 1.0) ** 2
            arms[i] = (worth - price[:, None] * use).argmax(axis=1)
        else:
            arms[i] = rng.integers(k)
        plan = np.where(hears, use[arms[i]], target) - aim
        late.append((known.used[i, arms[i]], plan))
        planned = planned + plan
    return list(arms.T)


class _Prices:
    """The lowest of many prices at which some contexts (n, K) use no more than is to be used, for several who shun scatter.

    Who shuns scatter may pay for use as well: its prices may be below 0.
    """

    def __init__(self, quality: Float, use: Float, shuns: Float) -> None:
        rows, spread = np.arange(len(use)), FLOOR * use.mean()
        self._tables: list[tuple[NDArray[np.bool_], Float, Float]] = []
        for one in np.unique(shuns):
            up = np.geomspace(1e-5, 1e3, _PRICES // 4 if one else _PRICES)
            prices = np.concatenate([-up[::-1] if one else [], [0.0], up])
            worth = quality - one * (use - 1.0) ** 2
            best = ((worth - price * use).argmax(axis=1) for price in prices)
            demand = np.array([(1.0 - FLOOR) * use[rows, arms].mean() + spread for arms in best])
            self._tables.append((shuns == one, prices, -np.minimum.accumulate(demand)))  # rises with the price

    def at(self, target: Float) -> Float:
        made = np.zeros_like(target)
        for whose, prices, spare in self._tables:
            made[whose] = prices[np.minimum(np.searchsorted(spare, -target[whose]), len(prices) - 1)]
        return made
