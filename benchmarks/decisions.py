"""The policies, contexts and rewards that choosing and learning are measured with."""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman.arms import ArmSpace
from steersman.features import FeatureSpec, Numeric
from steersman.snapshot import PolicySnapshot

SHAPES: dict[str, tuple[dict[str, list[Any]], int]] = {
    "8 arms, d=16": ({"arm": list(range(8))}, 16),
    "8 arms, d=36": ({"arm": list(range(8))}, 36),
    "162 joint arms, d=32": ({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3], "d": [1, 2, 3], "e": [1, 2]}, 32),
}
"""Knobs, and the length of x with its constant."""


def spec_of(shape: str) -> PolicySpec:
    """The policy of a shape: numeric features, and cost and latency in its utility."""
    knobs, dim = SHAPES[shape]
    arms = ArmSpace(knobs)
    features = FeatureSpec(features=tuple(Numeric(name=f"x{i}") for i in range(dim - 1)))
    reward = RewardSpec(weights=Weights(cost=0.1, latency=0.1), scales=Scales())
    return PolicySpec("default", "bench/policy", arms, arms.labels[0], features, reward)


def context_of(shape: str) -> dict[str, float]:
    """A context of a shape: d - 1 numbers by name."""
    return {f"x{i}": 0.1 * i for i in range(SHAPES[shape][1] - 1)}


def rewards_of(spec: PolicySpec, n: int) -> list[dict[str, Any]]:
    """Reward records of one source partition, equal ones for equal arguments."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, spec.features.dim)).astype(np.float32)
    x[:, -1] = 1.0
    return [
        {
            "decision_id": f"{i:032x}-{i:016x}",
            "tenant": spec.tenant,
            "policy": spec.name,
            "trace_id": f"{i:032x}",
            "agent": "bench",
            "ts": 1_700_000_000_000_000 + i,
            "decided_at": 1_700_000_000_000_000,
            "policy_epoch": 1,
            "policy_version": 0,
            "arm": spec.arms.labels[int(rng.integers(len(spec.arms)))],
            "propensity": 0.5,
            "mode": "LIVE",
            "features": x[i].tolist(),
            "quality": float(rng.normal()),
            "cost_micro_usd": int(rng.integers(20_000)),
            "latency_us": int(rng.integers(10**7)),
            "failures": 0,
            "utility": 0.0,
            "reward_spec": spec.reward_hash,
            "closed_by": "COMPLETE",
            "source_partition": 0,
            "source_offset": i,
            "seq": 0,
        }
        for i in range(n)
    ]


def snapshot_of(spec: PolicySpec, n: int) -> PolicySnapshot:
    """The policy after n rewards."""
    learner = PolicyLearner(spec)
    learner.learn_many(rewards_of(spec, n))
    return learner.snapshot(0)
