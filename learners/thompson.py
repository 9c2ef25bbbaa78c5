"""Thompson sampling: the linear learner's posterior, arms taken as often as they are likely to be the best one."""

from __future__ import annotations

from typing import ClassVar

from .policy_learner import PolicyLearner


class Thompson(PolicyLearner):
    """Gaussian Thompson sampling on contrasts with the best arm (W. Thompson, 1933; S. Agrawal and N. Goyal, ICML 2013).

    The probabilities are computed, not sampled (`steersman.exploration.thompson`), and decisions drawn from them.
    """

    KIND: ClassVar[str] = "thompson"
