"""LinUCB: optimism over ridge regressions of the levels, which share nothing."""

from __future__ import annotations

from typing import ClassVar

from .policy_learner import PolicyLearner
from .priors import Prior

NOTHING_SHARED = 1e9
"""So many events' worth of belief that an effect is 0."""


class LinUCB(PolicyLearner):
    """LinUCB (L. Li, W. Chu, J. Langford and R. Schapire, WWW 2010) with unit ridge.

    With one knob it is the disjoint LinUCB of the paper, one regression per arm; with several, an arm is the sum of its
    levels' regressions. The bonus is `scale` (0.75) deviations of the arm's estimate, noise included. It is deterministic but for
    the floor: while rewards are late it takes one arm again and again.
    """

    KIND: ClassVar[str] = "ucb"
    WORTH: ClassVar[float] = 0.0
    ODDS: ClassVar[bool] = False
    TAKES_PRIOR: ClassVar[bool] = False
    QUALITY: ClassVar[Prior] = Prior(
        shared=NOTHING_SHARED,
        shared_constant=NOTHING_SHARED,
        interactions=dict.fromkeys(("constant", "categorical", "numeric", "embedding", "text"), 1.0),
        pair=1.0,
    )
