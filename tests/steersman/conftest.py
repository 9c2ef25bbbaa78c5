"""Parts that the tests of the agent package share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from steersman.arms import ArmSpace
from steersman.features import FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.sink import MemorySink
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Term
from steersman.tracer import Tracer

T0 = 1_760_000_000_000_000


@dataclass
class ManualClock:
    """A clock that moves when told to; wall and monotonic time move together."""

    us: int = T0

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us - T0 + 5_000

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * 1e6)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def tracer(sink: MemorySink, clock: ManualClock) -> Tracer:
    return Tracer("retrieval", sink=sink, clock=clock)


@pytest.fixture
def make_snapshot() -> Callable[..., PolicySnapshot]:
    """Snapshots of a policy with arms model=s|m x top_k=2|8, baseline model=m;top_k=8, three features."""
    arms = ArmSpace({"model": ["s", "m"], "top_k": [2, 8]})
    features = FeatureSpec(features=tuple(Numeric(name=name) for name in ("complexity", "length")))
    layout = make_layout(arms, features)
    rng = np.random.default_rng(7)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    covariance = (0.1 * np.eye(layout.arm_size)).astype(np.float32)
    tensors[COVARIANCE] = covariance[np.tril_indices(layout.arm_size)]
    base = PolicySnapshot(
        tenant="default",
        policy="research/retrieval",
        epoch=1,
        version=5,
        arms=arms,
        features=features,
        baseline="model=m;top_k=8",
        tensors=tensors,
        objective=(Term("quality", 1.0, 1.0), Term("cost", -0.1, 1000.0)),
        reward_spec="0" * 16,
        created_at=T0,
        exploration_scale=1.0,
    )

    def make(**changes: Any) -> PolicySnapshot:
        return replace(base, **changes)

    return make
