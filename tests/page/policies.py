"""Policies with random weights."""

from __future__ import annotations

import numpy as np

from steersman.arms import ArmSpace
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.held import Held
from steersman.layout import make_layout
from steersman.scoring import Scorer
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Term


def held(
    name: str = "team/answers", version: int = 190, *, small: bool = False, seed: int = 7, created_at: int = 5
) -> Held:
    """A policy: one knob and one feature where `small`, else two knobs with a pair, and a category too."""
    arms = ArmSpace({"model": ["small", "large"]} if small else {"model": ["small", "large"], "k": [1, 2]})
    more = () if small else (Categorical(name="kind", values=("a", "b")),)
    features = FeatureSpec(features=(Numeric(name="size"), *more))
    layout = make_layout(arms, features)
    rng = np.random.default_rng(seed)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    tensors[COVARIANCE] = (0.1 * np.eye(layout.arm_size)).astype(np.float32)[np.tril_indices(layout.arm_size)]
    snapshot = PolicySnapshot(
        tenant="default", policy=name, epoch=1, version=version, arms=arms, features=features, baseline=arms.labels[0],
        tensors=tensors, objective=(Term("quality", 1.0, 1.0), Term("cost", -0.1, 1000.0)), reward_spec="0" * 16,
        created_at=created_at, exploration_scale=1.0,
    )  # fmt: skip
    return Held(snapshot, Scorer(snapshot), created_at)
