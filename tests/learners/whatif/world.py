"""A small world in which the value of every policy can be computed, and the log that a learning policy leaves in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec
from steersman.scoring import Scorer, draw

Float = NDArray[np.float64]
SECOND = 1_000_000
START_US = 1_790_000_000 * SECOND
HEAD = """
[[policy]]
name = "a/one"
baseline = { model = "large", k = 4 }
[policy.knobs]
model = ["small", "middle", "large"]
k = [2, 4]
[[policy.features]]
kind = "numeric"
name = "hard"
[[policy.features]]
kind = "categorical"
name = "kind"
values = ["law", "news"]
[policy.reward]
weights = { quality = 1.0, cost = 0.2, latency = 0.05 }
scales = { cost_micro_usd = 1000.0, latency_us = 1000000.0 }
"""
_QUALITY = np.array([[0.55, 0.6], [0.65, 0.68], [0.72, 0.8]])  # model x k
_COST = np.array([200.0, 600.0, 1400.0])


def spec_of(text: str = HEAD) -> PolicySpec:
    return next(iter(parse_policies(text)))


def candidate_of(change: str, to: str) -> PolicySpec:
    """The policy with a line of its file changed."""
    assert change in HEAD
    return spec_of(HEAD.replace(change, to))


def expected(spec: PolicySpec, x: NDArray[np.float32]) -> tuple[Float, Float, Float]:
    """Mean quality, cost and latency (n, K) of the arms in contexts (n, d): hard ones need a larger model, law ones too."""
    model, k = spec.arms.levels[:, 0], spec.arms.levels[:, 1]
    hard = x[:, :1].astype(float)
    quality = _QUALITY[model, k][None] + 0.12 * hard * (model - 1)[None] - 0.05 * x[:, 1:2] * (model == 0)[None]
    cost = np.tile(_COST[model] + 100.0 * k, (len(x), 1)) * np.exp(0.1 * hard)
    latency = np.tile(5e5 + 3e5 * model + 2e5 * k, (len(x), 1))
    return quality, cost, latency


def utilities(spec: PolicySpec, world: PolicySpec, x: NDArray[np.float32]) -> Float:
    """Mean utility (n, K) of the world's arms under a spec's weights."""
    quality, cost, latency = expected(world, x)
    w, s = spec.reward.weights, spec.reward.scales
    return np.asarray(w.quality * quality - w.cost * cost / s.cost_micro_usd - w.latency * latency / s.latency_us)


def log_of(spec: PolicySpec, n: int, seed: int, *, unjudged: float = 0.0, every: int = 20) -> list[dict[str, Any]]:
    """Reward records of a policy that learns as it goes; rewards close 3 to 9 s after their decision, one decision a second."""
    rng = np.random.default_rng(seed)
    learner = PolicyLearner(replace(spec, guard=None))
    made: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    scorer, version = Scorer(learner.snapshot(0)), 0
    for i in range(n):
        now = START_US + i * SECOND
        if i % every == 0:
            closed = sorted((r for r in waiting if r["ts"] < now), key=lambda r: r["ts"])
            learner.learn_many(closed)
            waiting = [r for r in waiting if r["ts"] >= now]
            scorer, version = Scorer(learner.snapshot(0)), learner.version
        x = spec.features.encode(
            {"hard": float(np.clip(rng.normal(), -2, 2)), "kind": str(rng.choice(["law", "news"]))}
        )
        eligible = np.ones(len(spec.arms), dtype=bool)
        if rng.random() < 0.2:
            eligible[rng.integers(0, len(eligible))] = False
        holdout = rng.random() < 0.1
        chance = scorer.score(x, eligible).propensity
        arm = spec.arms.index(spec.baseline) if holdout else draw(chance, float(rng.random()))
        quality, cost, latency = (float(table[0, arm]) for table in expected(spec, x[None]))
        judged = rng.random() >= unjudged
        waiting.append(
            {
                "decision_id": f"d{i}", "tenant": spec.tenant, "policy": spec.name, "trace_id": "t", "agent": "",
                "ts": now + int(rng.integers(3, 10)) * SECOND, "decided_at": now, "policy_epoch": 1, "policy_version": version,
                "arm": spec.arms.labels[arm], "propensity": 1.0 if holdout else float(chance[arm]), "explored": False,
                "mode": "HOLDOUT" if holdout else "LIVE", "features": x.tolist(),
                "eligible": [] if eligible.all() else np.flatnonzero(eligible).tolist(),
                "quality": float(quality + rng.normal(0, 0.1)) if judged else None, "quality_defaulted": False,
                "cost_micro_usd": int(cost * np.exp(rng.normal(0, 0.05))), "latency_us": int(latency * np.exp(rng.normal(0, 0.1))),
                "failures": 0, "closed_by": "COMPLETE", "utility": None, "reward_spec": spec.reward_hash, "source": None, "peers": "",
                "source_partition": 0, "source_offset": i, "seq": 0,
            }
        )  # fmt: skip
        made.append(waiting[-1])
    made.sort(key=lambda r: r["ts"])
    for offset, record in enumerate(made):
        record["source_offset"] = offset
    return made
