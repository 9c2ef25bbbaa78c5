"""The learners there are: to add one, write a file that defines it, and its line here."""

from __future__ import annotations

LEARNERS: dict[str, str] = {
    "linear": "learners.policy_learner:PolicyLearner",
    "neural": "learners.neural.learner:NeuralLearner",
    "thompson": "learners.thompson:Thompson",
    "squarecb": "learners.squarecb:SquareCB",
    "linucb": "learners.linucb:LinUCB",
    "ucb1": "learners.ucb1:Ucb1",
    "epsilon_greedy": "learners.epsilon_greedy:EpsilonGreedy",
}
"""Name in ``policies.toml`` -> "module:class"."""
