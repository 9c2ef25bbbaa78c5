"""Epsilon-greedy: the linear learner's means, and a constant share of even draws."""

from __future__ import annotations

from typing import ClassVar

from .policy_learner import PolicyLearner


class EpsilonGreedy(PolicyLearner):
    """The best arm with probability 1 - epsilon, else any (C. Watkins, 1989); epsilon is the policy's floor, 0.05 by default."""

    KIND: ClassVar[str] = "greedy"
