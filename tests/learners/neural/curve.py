"""A policy whose quality is a product of two signals, and rewards of it: nothing for a linear model, easy for an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from learners.policies_file import parse_policies
from learners.spec import PolicySpec

POLICY = """
[[policy]]
name = "a/one"
learner = "neural"
baseline = { model = "large", k = 8 }
[policy.knobs]
model = ["small", "large"]
k = [4, 8]
[[policy.features]]
kind = "numeric"
name = "a"
[[policy.features]]
kind = "numeric"
name = "b"
[policy.reward]
weights = { quality = 1.0, cost = 0.1 }
scales = { cost_micro_usd = 10000.0 }
"""


def spec(text: str = POLICY) -> PolicySpec:
    return next(iter(parse_policies(text)))


def reward(i: int, **changes: Any) -> dict[str, Any]:
    """The i-th reward: the small model is good where both signals are high or both low, the large one elsewhere."""
    of, rng = spec(), np.random.default_rng(i)
    a, b = rng.uniform(-1.7, 1.7, 2).tolist()
    arm = int(rng.integers(4))
    good = (a * b > 0) == (arm < 2)
    x = of.features.encode({"a": a, "b": b})
    return {
        "decision_id": f"{i:032x}-{i:016x}", "tenant": "default", "policy": "a/one", "trace_id": "t", "agent": "", "ts": i * 200_000,
        "decided_at": 1, "policy_epoch": 1, "policy_version": 0, "arm": of.arms.labels[arm], "propensity": 0.25,
        "explored": False, "mode": "LIVE", "features": x.tolist(), "eligible": [],
        "quality": None if i % 11 == 0 else 0.2 + 0.6 * good + 0.05 * float(rng.normal()), "quality_defaulted": False,
        "cost_micro_usd": 900 + 100 * arm, "latency_us": 20, "failures": int(i % 50 == 0), "utility": 0.0,
        "reward_spec": of.reward_hash, "input_tokens": 0, "output_tokens": 0, "spans": 1, "feedback_count": 1,
        "feedback_delay_us": 1, "closed_by": "COMPLETE", "source_partition": i % 3, "source_offset": i, "seq": 0,
        **changes,
    }  # fmt: skip
