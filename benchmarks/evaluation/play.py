"""One learner against one scenario in one order: only the outcome of the chosen arm is shown, and it may come late."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.scenario import Scenario

X = NDArray[np.float32]


class Outcome(NamedTuple):
    """What the chosen arm showed; units: the metric's, millionths of a US dollar, microseconds."""

    utility: float
    quality: float
    cost: float
    latency: float


class Player(Protocol):
    """A learner in the game."""

    def choose(self, x: X) -> tuple[int, float]:
        """Return the arm for a context, and its propensity (1 where the learner states none)."""
        ...

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Learn what a choice earned."""
        ...


@dataclass(frozen=True)
class Played:
    """What came of it; means over all rounds unless said otherwise.

    Attributes
    ----------
    mean_utility, last_quarter
        Over all rounds, and over the last quarter of them.
    best_fixed, oracle
        The same of the best arm known in hindsight, and of the best arm of every single request.
    quality, cost_usd, latency_ms
        Of the chosen arms.
    us_per_round
        CPU time of choosing and learning; unit: microseconds.
    worst_two
        Share of rounds on the two arms of the lowest mean utility.
    """

    mean_utility: float
    last_quarter: float
    best_fixed: float
    oracle: float
    quality: float
    cost_usd: float
    latency_ms: float
    us_per_round: float
    worst_two: float


def play(player: Player, scenario: Scenario, delay: int = 0) -> Played:
    """Play all rounds.

    Parameters
    ----------
    player
        A fresh learner.
    scenario
        In the order to be played.
    delay
        Outcomes are shown after so many further decisions.
    """
    n = len(scenario.x)
    utility = scenario.utility
    chosen = np.empty(n, dtype=np.int64)
    waiting: deque[tuple[int, int, float]] = deque()
    started = time.process_time()
    for i in range(n):
        arm, propensity = player.choose(scenario.x[i])
        chosen[i] = arm
        waiting.append((i, arm, propensity))
        if len(waiting) > delay:
            at, arm, propensity = waiting.popleft()
            outcome = Outcome(
                float(utility[at, arm]),
                float(scenario.quality[at, arm]),
                float(scenario.cost[at, arm]),
                float(scenario.latency[at, arm]),
            )
            player.learn(scenario.x[at], arm, propensity, outcome)
    spent = time.process_time() - started
    return judge(scenario, chosen, 1e6 * spent / n)


def judge(scenario: Scenario, chosen: NDArray[np.int64], us_per_round: float = 0.0) -> Played:
    """Return what the arms `chosen` (n,) came to."""
    n = len(chosen)
    rows, judged = np.arange(n), scenario.judged
    got = judged[rows, chosen]
    by_utility = np.argsort(judged.mean(axis=0))
    return Played(
        mean_utility=float(got.mean()),
        last_quarter=float(got[n * 3 // 4 :].mean()),
        best_fixed=float(judged[:, scenario.best_fixed].mean()),
        oracle=float(judged.max(axis=1).mean()),
        quality=float(scenario.quality[rows, chosen].mean()),
        cost_usd=float(scenario.cost[rows, chosen].mean()) / 1e6,
        latency_ms=float(scenario.latency[rows, chosen].mean()) / 1e3,
        us_per_round=us_per_round,
        worst_two=float(np.isin(chosen, by_utility[:2]).mean()),
    )
