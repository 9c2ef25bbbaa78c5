"""A policy as River's users know bandits: pull an arm for a context, update it with a reward."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
from river import bandit, stats

from steersman.scoring import Scorer, Scores, draw

from .registry import make_learner
from .spec import PolicySpec


class RiverPolicy(bandit.base.ContextualPolicy):
    """A learner of the catalog and `Scorer` behind ``river.bandit.base.ContextualPolicy``.

    Which learner is the spec's. Arms are the spec's labels; a context is the dict that the spec's features encode. Runs wherever River wants a
    contextual bandit, with the same arithmetic as the live loop, and states its propensities.

    Parameters
    ----------
    spec : PolicySpec
    refresh : int
        Solve new weights after so many updates (1: every update).
    seed : int, optional
    reward_obj : river statistic, optional
        What `ranking` sorts arms by; the mean utility by default.

    Examples
    --------
    >>> from learners.spec import PolicySpec
    >>> from steersman.arms import ArmSpace
    >>> spec = PolicySpec("default", "demo", ArmSpace({"model": ["small", "large"]}), "model=large")
    >>> policy = RiverPolicy(spec, seed=1)
    >>> for _ in range(200):
    ...     arm = policy.pull(list(spec.arms.labels), context={})
    ...     policy.update(arm, {}, 0.9 if arm == "model=small" else 0.4)
    >>> policy.ranking[0]
    'model=small'
    """

    def __init__(self, spec: PolicySpec, refresh: int = 1, seed: int | None = None, reward_obj: Any = None) -> None:
        super().__init__(reward_obj=reward_obj or stats.Mean())
        self.spec = spec
        self.refresh = refresh
        self.seed = seed
        self.learner = make_learner(spec)
        self._random = Random(seed)  # noqa: S311  # draws arms, guards nothing
        self._scorer: Scorer | None = None
        self._solved_at = 0

    def scores(self, arm_ids: list[Any], context: Mapping[str, object] | None) -> Scores:
        """What the policy says about a context when only `arm_ids` are allowed; ValueError for an unknown arm."""
        behind = self.learner.version - self._solved_at
        if self._scorer is None or behind >= self.refresh:
            self._scorer = Scorer(self.learner.snapshot(now_us=0))
            self._solved_at = self.learner.version
        eligible = np.zeros(len(self.spec.arms), dtype=bool)
        eligible[[self.spec.arms.index(arm) for arm in arm_ids]] = True
        return self._scorer.score(self.spec.features.encode(context or {}), eligible)

    def _pull(self, arm_ids: list[Any], context: Mapping[str, object] | None = None) -> str:
        scores = self.scores(arm_ids, context)
        return self.spec.arms.labels[draw(scores.propensity, self._random.random())]

    def update(
        self,
        arm_id: str,
        context: Mapping[str, object] | None,
        quality: float,
        cost_micro_usd: float = 0.0,
        latency_us: float = 0.0,
        failures: float = 0.0,
    ) -> None:
        """Learn what an arm did: quality (the metric's unit), cost, latency and failures in the reward's units."""
        report = self.learner.learn_many(
            [
                {
                    "decision_id": str(self._n),
                    "tenant": self.spec.tenant,
                    "policy": self.spec.name,
                    "arm": arm_id,
                    "mode": "LIVE",
                    "features": self.spec.features.encode(context or {}),
                    "policy_epoch": None,
                    "reward_spec": self.spec.reward_hash,
                    "quality": quality,
                    "cost_micro_usd": cost_micro_usd,
                    "latency_us": latency_us,
                    "failures": failures,
                    "source_partition": -1,
                    "source_offset": -1,
                    "seq": 0,
                }
            ]
        )
        if report.skipped:
            raise ValueError(f"the reward cannot be learned from: {', '.join(report.skipped)}")
        utility = self.spec.reward.utility(quality, cost_micro_usd, latency_us, failures)
        super().update(arm_id, context, utility)  # type: ignore[no-untyped-call]
