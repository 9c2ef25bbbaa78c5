"""The learners there are: to add one, write a file that defines it, and its line here."""

from __future__ import annotations

LEARNERS: dict[str, str] = {
    "linear": "learners.policy_learner:PolicyLearner",
    "neural": "learners.neural.learner:NeuralLearner",
}
"""Name in ``policies.toml`` -> "module:class"."""
