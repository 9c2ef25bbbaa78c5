"""What a decision costs, and what learning costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Figure, per_call_us, percentiles_us
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman import MemorySink, Router, StaticPolicies, Tracer
from steersman.arms import ArmSpace
from steersman.features import FeatureSpec, Numeric

CHOOSE_PAYLOAD = (
    "context of d-1 numbers as a dict; linear policy after 2,000 rewards; decision event handed to a memory sink"
)
LEARN_PAYLOAD = (
    "reward records as dicts, 8 arms, d = 16, batches of 1 and 500; a snapshot includes solving and inverting"
)


def _spec(knobs: dict[str, list[Any]], dim: int) -> PolicySpec:
    arms = ArmSpace(knobs)
    features = FeatureSpec(features=tuple(Numeric(name=f"x{i}") for i in range(dim - 1)))
    reward = RewardSpec(weights=Weights(cost=0.1, latency=0.1), scales=Scales())
    return PolicySpec("default", "bench/policy", arms, arms.labels[0], features, reward)


def _rewards(spec: PolicySpec, n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, spec.features.dim)).astype(np.float32)
    x[:, -1] = 1.0
    return [
        {
            "decision_id": f"{i:032x}-{i:016x}", "tenant": "default", "policy": spec.name, "reward_spec": spec.reward_hash,
            "features": x[i].tolist(), "arm": spec.arms.labels[int(rng.integers(len(spec.arms)))], "mode": "LIVE",
            "policy_epoch": 1, "policy_version": 0, "quality": float(rng.normal()), "cost_micro_usd": int(rng.integers(20_000)),
            "latency_us": int(rng.integers(10**7)), "failures": 0, "utility": 0.0,
            "source_partition": -1, "source_offset": i, "seq": 0,
        }
        for i in range(n)
    ]  # fmt: skip


def choose() -> Iterator[Figure]:
    """`Router.choose` with everything it does on the caller's thread."""
    shapes = {
        "8 arms, d=16": ({"arm": list(range(8))}, 16),
        "162 joint arms, d=32": ({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3], "d": [1, 2, 3], "e": [1, 2]}, 32),
    }
    for name, (knobs, dim) in shapes.items():
        spec = _spec(knobs, dim)
        learner = PolicyLearner(spec)
        learner.learn_many(_rewards(spec, 2000))
        tracer = Tracer("bench", sink=MemorySink())
        router = Router(StaticPolicies([learner.snapshot(0)]), tracer, seed=0, max_age_s=1e9)
        context = {f"x{i}": 0.1 * i for i in range(dim - 1)}
        if router.choose(spec.name, context).mode != "LIVE":
            raise RuntimeError("the router does not decide by the policy: the figures would be of its fallback")
        yield from percentiles_us(
            f"Router.choose, {name}", "call", lambda r=router, p=spec.name, c=context: r.choose(p, c)
        )  # type: ignore[misc]
        tracer.close()


def learn() -> Iterator[Figure]:
    """Learning from reward records, and making a snapshot."""
    spec = _spec({"arm": list(range(8))}, 16)
    rewards = _rewards(spec, 5000)

    def one_by_one() -> int:
        learner = PolicyLearner(spec)
        for reward in rewards[:1000]:
            learner.learn_one(reward)
        return 1000

    def batches() -> int:
        learner = PolicyLearner(spec)
        for i in range(0, len(rewards), 500):
            learner.learn_many(rewards[i : i + 500])
        return len(rewards)

    trained = PolicyLearner(spec)

    def snapshots() -> int:
        for reward in rewards[:50]:
            trained.learn_one(reward)
            trained.snapshot(0)
        return 50

    yield per_call_us("PolicyLearner.learn_one", "per reward", one_by_one)
    yield per_call_us("PolicyLearner.learn_many(500)", "per reward", batches)
    yield per_call_us("learn_one + snapshot", "per snapshot", snapshots)
