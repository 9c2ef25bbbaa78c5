"""Policies to attack: snapshots as a learner makes them, of any policy and version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from steersman.arms import ArmSpace
from steersman.features import FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Term

NOW_US = 1_760_000_000_000_000
LEVELS = {"model": ["s", "m"], "top_k": [2, 8]}


def snapshot(**changes: Any) -> PolicySnapshot:
    """A live policy ``acme/research/retrieval`` with four arms; `arms` may be given as knobs."""
    arms = ArmSpace(changes.pop("knobs", LEVELS))
    features = FeatureSpec(features=(Numeric(name="complexity"), Numeric(name="length")))
    layout = make_layout(arms, features)
    rng = np.random.default_rng(7)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    tensors[COVARIANCE] = (0.1 * np.eye(layout.arm_size)).astype(np.float32)[np.tril_indices(layout.arm_size)]
    base = PolicySnapshot(
        tenant="acme",
        policy="research/retrieval",
        epoch=3,
        version=500,
        arms=arms,
        features=features,
        baseline=arms.labels[-1],
        tensors=tensors,
        objective=(Term("quality", 1.0, 1.0), Term("cost", -0.1, 1000.0)),
        reward_spec="0" * 16,
        created_at=NOW_US,
        exploration_scale=1.0,
    )
    return replace(base, **changes)
