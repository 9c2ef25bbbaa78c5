from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steersman.arms import ArmSpace
from steersman.encoder import Encoder, latent_features
from steersman.errors import SnapshotError
from steersman.features import FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.scoring import Scorer
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot, Term

Tensors = dict[str, Any]
DIM, HIDDEN, WIDTH = 3, 5, 4
FEATURES = FeatureSpec(features=(Numeric(name="a"), Numeric(name="b")))
ARMS = ArmSpace({"model": ["s", "l"], "k": [1, 2]})


def encoder() -> Tensors:
    rng = np.random.default_rng(0)
    shapes = {
        "0.weight": (HIDDEN, DIM), "0.bias": (HIDDEN,), "1.weight": (WIDTH, HIDDEN), "1.bias": (WIDTH,),
        "shift": (WIDTH,), "scale": (WIDTH,),
    }  # fmt: skip
    return {f"encoder.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def heads(features: FeatureSpec) -> Tensors:
    layout, rng = make_layout(ARMS, features), np.random.default_rng(1)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    root = rng.normal(size=(layout.arm_size, layout.arm_size))
    tensors[COVARIANCE] = (root @ root.T)[np.tril_indices(layout.arm_size)].astype(np.float32)
    return tensors


def snapshot(tensors: Tensors, features: FeatureSpec = FEATURES) -> PolicySnapshot:
    return PolicySnapshot(
        tenant="default", policy="p", epoch=1, version=1, arms=ARMS, features=features, baseline="model=l;k=2",
        tensors=tensors, objective=(Term("quality", 1.0, 1.0), Term("cost", -0.1, 2.0)), reward_spec="0" * 16, created_at=1,
    )  # fmt: skip


def test_an_encoded_policy_scores_as_a_policy_of_its_z_would() -> None:
    tensors, latent = encoder(), latent_features(WIDTH)
    made = snapshot({**heads(latent), **tensors})
    inner = Scorer(snapshot(heads(latent), latent))
    x = FEATURES.encode({"a": 0.3, "b": -1.2})
    z = Encoder(tensors)(x)
    found, expected = Scorer(made).score(x), inner.score(z)
    np.testing.assert_array_equal(found.utility, expected.utility)
    np.testing.assert_array_equal(found.propensity, expected.propensity)
    assert Scorer(made).components(x).cost.tolist() == inner.components(z).cost.tolist()
    assert made.layout.dim == WIDTH + 1


def test_it_survives_the_wire_with_its_report() -> None:
    made = replace(snapshot({**heads(latent_features(WIDTH)), **encoder()}), learner_report='{"model":"neural"}')
    again = PolicySnapshot.from_record(made.to_record())
    assert again.learner_report == '{"model":"neural"}'
    for name, tensor in made.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], tensor)


def test_x_of_another_length_is_refused() -> None:
    scorer = Scorer(snapshot({**heads(latent_features(WIDTH)), **encoder()}))
    with pytest.raises(ValueError, match=r"needs \(3,\)"):
        scorer.score(np.ones(WIDTH + 1))
    with pytest.raises(ValueError, match="last entry"):
        scorer.score(np.zeros(DIM))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("encoder.1.bias"), "'encoder.1.bias' is missing"),
        (lambda t: t.pop("encoder.scale"), "'encoder.scale' is missing"),
        (lambda t: t.update({"encoder.0.weight": t["encoder.0.weight"][:, :2]}), "'encoder.0.weight' must be"),
        (lambda t: t.update({"encoder.shift": t["encoder.shift"].astype(np.float64)}), "'encoder.shift' must be"),
        (lambda t: t["encoder.1.weight"].__setitem__((0, 0), np.nan), "'encoder.1.weight' is not finite"),
        (lambda t: t.update({"encoder.1.bias": np.zeros(100_000, np.float32)}), "100000 outputs"),
        (lambda t: t.update({"encoder.1.bias": np.zeros(0, np.float32)}), "0 outputs"),
        (lambda t: t.update(heads(FEATURES)), "'weights.quality' must be"),
    ],
)
def test_broken_encoders_are_refused(change: Callable[[Tensors], object], what: str) -> None:
    tensors = {**heads(latent_features(WIDTH)), **encoder()}
    change(tensors)
    with pytest.raises(SnapshotError, match=what):
        snapshot(tensors)
