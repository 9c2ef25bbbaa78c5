"""How near a ceiling the best controller could keep to it where ours stands: prices alone, snapshots now and then, rewards late.

It is told what ours has to learn or to guess: what each arm makes and uses in each context (heads taught with arms drawn evenly),
every context that will come, and what every decision on its way was meant to use. It sees the same rewards as late, sets a price
in the same snapshots, and settles what was overspent in as many decisions, and stays as far below the ceiling, as was best in
hindsight. What it misses is noise: from one snapshot to the news of it, `delay` to `delay` + `every` decisions are made of which nobody can know what they will use.
"""

from __future__ import annotations

from collections import deque
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


def controlled(known: Known, every: int, delay: int, seed: int) -> list[Arms]:
    """The arms that it chooses, int (n,), with each margin, and within it with each horizon; all from the same draws."""
    rng = np.random.default_rng((seed, 7))
    some = rng.choice(len(known.use), min(len(known.use), _CONTEXTS), replace=False)
    prices = _Prices(known.quality[some], known.use[some])
    rng = np.random.default_rng((seed, 5))
    n, k = known.use.shape
    aim = np.repeat(1.0 - np.array(MARGINS), len(HORIZONS))
    horizon = np.tile(HORIZONS, len(MARGINS))
    arms = np.zeros((n, len(aim)), dtype=np.int64)
    late: deque[tuple[Float, Float]] = deque()
    account, planned, target, price = np.zeros_like(aim), np.zeros_like(aim), aim, prices.at(aim)
    for i in range(n):
        if i % every == 0 and len(late) > delay:
            while len(late) > delay:
                used, plan = late.popleft()
                account, planned = account + used - aim, planned - plan
            target = np.clip(aim - (account + planned) / horizon, 0.0, _MOST)
            price = prices.at(target)
        if rng.random() >= FLOOR:
            arms[i] = (known.quality[i] - price[:, None] * known.use[i]).argmax(axis=1)
        else:
            arms[i] = rng.integers(k)
        late.append((known.used[i, arms[i]], target - aim))
        planned = planned + (target - aim)
    return list(arms.T)


class _Prices:
    """The lowest of many prices at which some contexts (n, K) use no more than is to be used."""

    def __init__(self, quality: Float, use: Float) -> None:
        self._prices = np.concatenate([[0.0], np.geomspace(1e-5, 1e3, _PRICES)])
        rows, spread = np.arange(len(use)), FLOOR * use.mean()
        best = ((quality - price * use).argmax(axis=1) for price in self._prices)
        demand = np.array([(1.0 - FLOOR) * use[rows, arms].mean() + spread for arms in best])
        self._spare = -np.minimum.accumulate(demand)  # rises with the price

    def at(self, target: Float) -> Float:
        return self._prices[np.minimum(np.searchsorted(self._spare, -target), _PRICES)]
