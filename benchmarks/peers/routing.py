"""Contextual bandits of other libraries in the game of `benchmarks.evaluation`: they see the utility, as one number.

Settings are those that did best in published or our own replays, the same for every scenario.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy
from pareto_bandit.policy import DisjointLinUCBPolicy
from river import bandit

from benchmarks.evaluation.play import Outcome, Player, X


class VowpalWabbit:
    """Vowpal Wabbit, one of its explorations over one regression of features, arms and their products.

    Parameters
    ----------
    options
        Of ``--cb_explore_adf``.
    """

    def __init__(self, options: str, n_arms: int, seed: int) -> None:
        self._vw = vowpalwabbit.Workspace(f"--cb_explore_adf {options} --quiet --random_seed {seed} -q xa")
        self._actions = [f"|a a{arm}" for arm in range(n_arms)]
        self._random = random.Random(seed)  # noqa: S311  # draws arms, guards nothing

    def choose(self, x: X) -> tuple[int, float]:
        """Predict the probabilities, and draw."""
        chances = self._vw.predict([_text(x), *self._actions])
        arm = self._random.choices(range(len(chances)), chances)[0]
        return arm, chances[arm] / sum(chances)

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Learn, the loss being 1 - utility."""
        actions = list(self._actions)
        actions[arm] = f"0:{1 - outcome.utility:.5f}:{max(propensity, 1e-4):.5f} {actions[arm]}"
        self._vw.learn([_text(x), *actions])


class Mabwiser:
    """MABWiser, one regression per arm."""

    def __init__(self, policy: object, n_arms: int, seed: int) -> None:
        self._mab = MAB(list(range(n_arms)), policy, seed=seed)
        self._n_arms, self._fitted = n_arms, False
        self._random = random.Random(seed)  # noqa: S311  # draws arms, guards nothing

    def choose(self, x: X) -> tuple[int, float]:
        """Predict; at random before the first outcome, which it cannot do without."""
        if not self._fitted:
            return self._random.randrange(self._n_arms), 1.0
        return int(self._mab.predict(x[None].astype(np.float64))), 1.0

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Fit, then fit in part."""
        learn = self._mab.partial_fit if self._fitted else self._mab.fit
        learn([arm], [outcome.utility], x[None].astype(np.float64))
        self._fitted = True


class River:
    """River's LinUCB, one Bayesian regression per arm."""

    def __init__(self, n_arms: int, seed: int) -> None:
        self._policy = bandit.LinUCBDisjoint(alpha=0.3, seed=seed)
        self._arms: list[int | str] = list(range(n_arms))

    def choose(self, x: X) -> tuple[int, float]:
        """Pull."""
        return int(self._policy.pull(self._arms, context=_named(x))), 1.0

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Update."""
        self._policy.update(arm, _named(x), outcome.utility)  # type: ignore[no-untyped-call]


class ParetoBandit:
    """ParetoBandit's policy as it starts cold: optimism 0.05; its router forgets with 0.997, its policy alone does not."""

    def __init__(self, n_arms: int, dim: int, seed: int, forgetting: float) -> None:
        self._names = [str(arm) for arm in range(n_arms)]
        self._policy = DisjointLinUCBPolicy(self._names, dim=dim, alpha=0.05, forgetting_factor=forgetting, seed=seed)

    def choose(self, x: X) -> tuple[int, float]:
        """Select."""
        name, _ = self._policy.select_arm(x.astype(np.float64))
        self._policy.mark_selected(name)
        return int(name), 1.0

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Update."""
        self._policy.update(self._names[arm], x.astype(np.float64), outcome.utility, advance_time=False)


class Ucb1:
    """UCB1 (Auer et al., 2002) without context, with the width 0.3 instead of the square root of 2, which explores too much."""

    def __init__(self, n_arms: int) -> None:
        self._n, self._mean, self._t = np.zeros(n_arms), np.zeros(n_arms), 0

    def choose(self, x: X) -> tuple[int, float]:
        """Take the highest bound; every arm once at first."""
        self._t += 1
        untried = np.flatnonzero(self._n == 0)
        if len(untried):
            return int(untried[self._t % len(untried)]), 1.0
        return int((self._mean + 0.3 * np.sqrt(math.log(self._t) / self._n)).argmax()), 1.0

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Update the mean."""
        self._n[arm] += 1
        self._mean[arm] += (outcome.utility - self._mean[arm]) / self._n[arm]


def _text(x: X) -> str:
    return "shared |x " + " ".join(f"{i}:{value:.4f}" for i, value in enumerate(x.tolist()) if value)


def _named(x: X) -> dict[str, float]:
    return {str(i): value for i, value in enumerate(x.tolist())}


PEERS: Mapping[str, Callable[[int, int, int], Player]] = {
    "vw greedy": lambda k, d, seed: VowpalWabbit("--epsilon 0", k, seed),
    "vw regcbopt": lambda k, d, seed: VowpalWabbit("--regcbopt --mellowness 0.01", k, seed),
    "vw squarecb": lambda k, d, seed: VowpalWabbit("--squarecb --gamma_scale 100", k, seed),
    "vw bag": lambda k, d, seed: VowpalWabbit("--bag 5", k, seed),
    "mabwiser linucb": lambda k, d, seed: Mabwiser(LearningPolicy.LinUCB(alpha=0.3), k, seed),
    "mabwiser lints": lambda k, d, seed: Mabwiser(LearningPolicy.LinTS(alpha=0.3), k, seed),
    "river linucb": lambda k, d, seed: River(k, seed),
    "paretobandit": lambda k, d, seed: ParetoBandit(k, d, seed, 0.997),
    "paretobandit static": lambda k, d, seed: ParetoBandit(k, d, seed, 1.0),
    "plain ucb1": lambda k, d, seed: Ucb1(k),
}
"""Name -> maker of a fresh learner from the number of arms, the length of x, and a seed."""
