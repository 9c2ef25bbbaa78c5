"""UCB1: optimism over means, blind to the context."""

from __future__ import annotations

from typing import ClassVar

from .exploring import ucb1_scale
from .linucb import NOTHING_SHARED
from .policy_learner import PolicyLearner
from .priors import Prior
from .regression import Posterior

BARELY = 1e-3
"""Prior, in events, of a mean: an arm that was never taken comes first."""


class Ucb1(PolicyLearner):
    """UCB1 (P. Auer, N. Cesa-Bianchi and P. Fischer, Machine Learning 47, 2002).

    The bonus of an arm taken n_a times is ``width sqrt(log n / n_a)``; width is the policy's exploration scale, 0.3 by default,
    since the paper's sqrt(2) explores too much for rewards that differ by hundredths. Cost, latency and failures are
    predicted from the context as ever: they need no exploration. With several knobs the means are sums over levels
    and pairs of levels.
    """

    KIND: ClassVar[str] = "ucb"
    WORTH: ClassVar[float] = 0.0
    ODDS: ClassVar[bool] = False
    TAKES_PRIOR: ClassVar[bool] = False
    QUALITY: ClassVar[Prior] = Prior(
        shared=NOTHING_SHARED,
        shared_constant=NOTHING_SHARED,
        interactions={
            "constant": BARELY,
            "categorical": NOTHING_SHARED,
            "numeric": NOTHING_SHARED,
            "embedding": NOTHING_SHARED,
            "text": NOTHING_SHARED,
        },
        pair=BARELY,
    )

    def scale(self) -> float:
        """Width of the bound: it grows with the logarithm of the rewards."""
        given = self.spec.exploration.scale
        return ucb1_scale(self._version, given) if self.kind == "ucb" else super().scale()

    def posteriors(self) -> tuple[Posterior, Posterior]:
        """As of the linear learner; of the quality with a noise of 1, since the width is in units of 1 / sqrt(pulls)."""
        quality, others = super().posteriors()
        return quality._replace(noise=quality.noise * 0.0 + 1.0), others
