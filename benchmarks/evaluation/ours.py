"""Our learners in the game: the classes that learn in a worker and decide in a router, without what lies between."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from benchmarks.evaluation.play import Outcome, X
from learners.registry import make_learner
from learners.spec import PolicySpec, RewardSpec
from steersman.scoring import Scorer, draw

REFRESH = 0.02
"""A new snapshot after so many more rewards, as a share of those learned: a worker publishes by time, which has no place here."""


class Ours:
    """A learner of the catalog and the scorer of a router.

    Parameters
    ----------
    spec
        The policy.
    name
        Of the learner.
    seed
        Of the draws.
    components
        Whether the learner sees quality, cost and latency, as it does live; else the utility alone, as the peers do.
    """

    def __init__(self, spec: PolicySpec, name: str, seed: int, *, components: bool = True) -> None:
        self.spec = replace(spec, learner=name, reward=spec.reward if components else RewardSpec())
        self._components = components
        self._learner = make_learner(self.spec)
        self._random = Random(seed)  # noqa: S311  # draws arms, guards nothing
        self._scorer = Scorer(self._learner.snapshot(0))
        self._waiting: list[dict[str, Any]] = []

    def choose(self, x: X) -> tuple[int, float]:
        """Draw an arm."""
        if len(self._waiting) > REFRESH * self._learner.version:
            report = self._learner.learn_many(self._waiting)
            if report.skipped:
                raise RuntimeError(f"rewards were not learned: {dict(report.skipped)}")
            self._waiting.clear()
            self._scorer = Scorer(self._learner.snapshot(0))
        propensity = self._scorer.score(x).propensity
        arm = draw(propensity, self._random.random())
        return arm, float(propensity[arm])

    def learn(self, x: X, arm: int, propensity: float, outcome: Outcome) -> None:
        """Keep the reward for the next snapshot."""
        parts = outcome if self._components else Outcome(outcome.utility, outcome.utility, 0.0, 0.0)
        n = self._learner.version + len(self._waiting)
        self._waiting.append(
            {
                "decision_id": f"{n:032x}-{n:016x}",
                "tenant": self.spec.tenant,
                "policy": self.spec.name,
                "arm": self.spec.arms.labels[arm],
                "propensity": propensity,
                "mode": "LIVE",
                "features": x.tolist(),
                "policy_epoch": 1,
                "reward_spec": self.spec.reward_hash,
                "quality": parts.quality,
                "cost_micro_usd": parts.cost,
                "latency_us": parts.latency,
                "failures": 0,
                "source_partition": 0,
                "source_offset": n,
                "seq": 0,
            }
        )
