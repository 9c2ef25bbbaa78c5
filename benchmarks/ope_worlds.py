"""Small worlds with known values, for off-policy evaluation: three kinds of context, arms, a logging policy per kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from learners.ope.decisions import Decisions, always, uniform

Float = NDArray[np.float64]
_KINDS = 3


@dataclass(frozen=True)
class World:
    """How decisions come about.

    Attributes
    ----------
    n, arms
        Decisions, and arms.
    evenness
        Parameter of the Dirichlet distribution from which the logging policy is drawn: the smaller, the heavier the weights.
    floor
        Probability that the logging policy shares evenly among the arms.
    target
        ``best`` arm of each kind of context, the ``first`` arm always, or ``uniform``.
    rewards
        ``binary``; ``normal`` with deviation 0.2; ``skewed``: a cost with an exponential tail.
    """

    n: int
    arms: int
    evenness: float
    floor: float
    target: Literal["best", "first", "uniform"]
    rewards: Literal["binary", "normal", "skewed"]


WORLDS = {
    "4 arms, 1,000 decisions, one arm asked": World(1_000, 4, 1.0, 0.2, "first", "binary"),
    "8 arms, 1,000 decisions, uneven logging": World(1_000, 8, 0.3, 0.05, "best", "binary"),
    "8 arms, 1,000 decisions, skewed costs": World(1_000, 8, 0.3, 0.1, "best", "skewed"),
    "4 arms, 300 decisions, normal rewards": World(300, 4, 1.0, 0.1, "first", "normal"),
    "18 arms, 3,000 decisions, weights up to 900": World(3_000, 18, 0.2, 0.02, "best", "binary"),
    "27 arms, 5,000 decisions, weights up to 1,350": World(5_000, 27, 0.1, 0.02, "best", "binary"),
    "27 arms, 5,000 decisions, uniform asked": World(5_000, 27, 0.1, 0.02, "uniform", "normal"),
}


def draw(world: World, seed: int) -> tuple[float, Decisions, Float, Float]:
    """Draw a world and its decisions.

    Returns
    -------
    tuple
        True value of the target policy; the decisions; the target's and the logging policy's probabilities, float64 (n, K).
    """
    rng = np.random.default_rng(seed)
    k = world.arms
    means = np.clip(rng.uniform(0.2, 0.8, k) + rng.normal(0.0, 0.15, (_KINDS, k)), 0.02, 0.98)
    logging = rng.dirichlet(np.full(k, world.evenness), _KINDS) * (1.0 - world.floor) + world.floor / k
    free = np.ones((_KINDS, k), dtype=bool)
    if world.target == "uniform":
        target = uniform(free)
    else:
        target = np.eye(k)[means.argmax(axis=1)] if world.target == "best" else always(0, free)
    kind = rng.integers(0, _KINDS, world.n)
    chances = logging[kind]
    arm = np.minimum((chances.cumsum(axis=1) < rng.random(world.n)[:, None]).sum(axis=1), k - 1)
    expected = means[kind, arm]
    if world.rewards == "binary":
        reward = (rng.random(world.n) < expected).astype(np.float64)
    elif world.rewards == "normal":
        reward = rng.normal(expected, 0.2)
    else:
        reward = 1.0 - rng.exponential(1.0 - expected)
    decisions = Decisions(arm, chances[np.arange(world.n), arm], reward, np.ones((world.n, k), dtype=bool))
    return float((target * means).sum(axis=1).mean()), decisions, target[kind], chances
