from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from river import bandit, datasets, evaluate, linear_model, metrics, preprocessing
from river.checks import yield_checks

from learners.head import BlockRidge
from learners.river_api import RiverPolicy
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman.arms import ArmSpace
from steersman.features import Categorical, FeatureSpec


def river_checks() -> list[Callable[[Any], None]]:
    """All of River's checks for this regressor.

    Making them imports scikit-learn, for data sets that only multi-target models get: where it is absent an empty
    module stands in for the import.
    """
    absent = importlib.util.find_spec("sklearn") is None
    if absent:
        stand_in = types.ModuleType("sklearn")
        stand_in.datasets = None  # type: ignore[attr-defined]
        sys.modules["sklearn"] = stand_in
    try:
        return list(yield_checks(BlockRidge()))
    finally:
        if absent:
            del sys.modules["sklearn"]


@pytest.mark.parametrize("check", river_checks(), ids=lambda c: c.__name__)
def test_river_checks(check: Callable[[Any], None]) -> None:
    check(BlockRidge())


def frame(n: int) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(n, 3)), columns=["a", "b", "c"])
    return x, x["a"] * 2 - x["c"] + 3 + rng.normal(size=n) * 0.1


def test_batch_equals_single() -> None:
    x, y = frame(300)
    one, many = BlockRidge(), BlockRidge()
    for row, target in zip(x.to_dict("records"), y, strict=True):
        one.learn_one(row, target)
    many.learn_many(x[:100], y[:100])
    many.learn_many(x[100:], y[100:])
    np.testing.assert_allclose(many.predict_many(x), [one.predict_one(row) for row in x.to_dict("records")], rtol=1e-9)
    assert many.predict_one({"a": 1.0}) == pytest.approx(5.0, abs=0.1)


def test_deviation_falls_to_the_noise() -> None:
    x, y = frame(1000)
    model = BlockRidge(precision=0.01, intercept=0.01, precisions={"b": 1e6})
    before = model.predict_one({"a": 1.0}, with_dist=True).sigma
    model.learn_many(x, y)
    after = model.predict_one({"a": 1.0}, with_dist=True)
    assert after.sigma == pytest.approx(0.1, rel=0.1)
    assert after.sigma < before
    assert abs(model.predict_one({"b": 1.0}) - model.predict_one({})) < 1e-3


def test_in_a_river_pipeline() -> None:
    scores = {}
    for model in (BlockRidge(), linear_model.LinearRegression()):
        pipeline = preprocessing.StandardScaler() | model
        metric = evaluate.progressive_val_score(datasets.TrumpApproval(), pipeline, metrics.MAE())
        scores[type(model).__name__] = metric.get()
    assert scores["BlockRidge"] < scores["LinearRegression"]


SPEC = PolicySpec(
    tenant="default",
    name="p",
    arms=ArmSpace({"model": ["s", "l"]}),
    baseline="model=l",
    features=FeatureSpec(features=(Categorical(name="c", values=("x", "y")),)),
    reward=RewardSpec(weights=Weights(cost=1.0), scales=Scales(cost_micro_usd=1000)),
)


def test_bandit_interface() -> None:
    policy = RiverPolicy(SPEC, refresh=10, seed=7)
    assert isinstance(policy, bandit.base.ContextualPolicy)
    rng = np.random.default_rng(0)
    arms = list(SPEC.arms.labels)
    for _ in range(800):
        context = {"c": "x" if rng.random() < 0.5 else "y"}
        arm = policy.pull(arms, context=context)
        right = (arm == "model=s") == (context["c"] == "x")
        policy.update(arm, context, float(rng.random() < (0.9 if right else 0.3)), cost_micro_usd=10)
    assert policy.scores(arms, {"c": "x"}).greedy == 0
    assert policy.scores(arms, {"c": "y"}).greedy == 1
    assert policy.pull(["model=s"], context={"c": "y"}) == "model=s"
    assert policy.ranking
    assert policy._n == policy.learner.version == 800
    with pytest.raises(ValueError, match="not_finite"):
        policy.update("model=s", {}, float("nan"))
    with pytest.raises(ValueError, match="no arm"):
        policy.pull(["model=z"], context={})
