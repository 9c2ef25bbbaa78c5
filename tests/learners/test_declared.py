"""What is declared of levels is a prior: exact in the sums, overruled by rewards, live, on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.declared import Declared
from learners.exploring import SECOND
from learners.lineage import rebuild
from learners.linucb import LinUCB
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.prior_spec import PriorSpec
from learners.revision import settings_of, with_settings
from learners.spec import Learning, PolicySpec, RewardSpec, Scales, Weights
from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import FeatureSpec, Numeric
from steersman.scoring import Scorer
from steersman.snapshot import SECOND_LOOK

ARMS = ArmSpace({"model": ["s", "m", "l"], "k": [2, 8]})
PRIOR = PriorSpec(
    events=30.0,
    quality={"model": {"s": 0.5, "l": 0.9}, "k": {"2": 0.6, "8": 0.7}},
    cost_micro_usd={"model": {"s": 100.0, "m": 300.0, "l": 2000.0}},
    latency_us={"k": {"2": 1e6, "8": 3e6}},
)
SPEC = PolicySpec(
    "default",
    "declared",
    ARMS,
    "model=l;k=8",
    FeatureSpec(features=(Numeric(name="n"),)),
    RewardSpec(weights=Weights(cost=0.1), scales=Scales(cost_micro_usd=1000.0, latency_us=1e6)),
    learning=Learning(robust=False, drift=False),
)
TOLD = replace(SPEC, prior=PRIOR)
QUALITY = {"s": 0.5, "m": 0.55, "l": 0.6}
"""What the models really make."""


def reward(i: int, arm: int | None = None, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng([5, i])
    n = float(rng.standard_normal())
    label = ARMS.labels[int(rng.integers(len(ARMS))) if arm is None else arm]
    model = dict(part.split("=") for part in label.split(";"))["model"]
    made = {
        "decision_id": f"{i:032x}-{i:016x}",
        "tenant": "default",
        "policy": "declared",
        "arm": label,
        "propensity": 1 / len(ARMS),
        "mode": "LIVE",
        "features": [n, 1.0],
        "policy_epoch": 1,
        "reward_spec": SPEC.reward_hash,
        "quality": QUALITY[model] + 0.1 * float(rng.standard_normal()),
        "cost_micro_usd": 500.0,
        "latency_us": 2e6,
        "failures": 0,
        "source_partition": 0,
        "source_offset": i,
        "seq": 0,
    }
    return made | changes


def taught(spec: PolicySpec, n: int) -> PolicyLearner:
    learner = PolicyLearner(spec)
    learner.learn_many([reward(i) for i in range(n)])
    return learner


def by_level(values: np.ndarray[Any, Any], knob: str) -> dict[Any, float]:
    at = list(ARMS.knobs).index(knob)
    return {level: float(values[ARMS.levels[:, at] == i].mean()) for i, level in enumerate(ARMS.knobs[knob])}


def test_before_any_reward_levels_are_expected_to_differ_as_declared() -> None:
    expected = Scorer(PolicyLearner(TOLD).snapshot(0)).components(SPEC.features.encode({"n": 0.0}))
    models, ks = by_level(expected.quality, "model"), by_level(expected.quality, "k")
    assert models["l"] - models["s"] == pytest.approx(0.4, abs=1e-5)
    assert models["m"] == pytest.approx((models["s"] + models["l"]) / 2, abs=1e-5)  # not declared: in the middle
    assert ks[8] - ks[2] == pytest.approx(0.1, abs=1e-5)
    assert expected.quality.mean() == pytest.approx((0.7 + 0.65) / 2, abs=1e-5)
    assert by_level(expected.cost, "model") == pytest.approx({"s": 100.0, "m": 300.0, "l": 2000.0}, rel=1e-4)
    assert by_level(expected.latency, "k") == pytest.approx({2: 1e6, 8: 3e6}, rel=1e-4)
    assert expected.failures == pytest.approx(0.0, abs=1e-6)


def test_the_posterior_is_that_of_a_bayesian_regression_with_this_prior_mean() -> None:
    """A linear learner without rules of its own (no worth of prices, no log-odds), so that the mean is all there is."""

    class Plain(PolicyLearner):
        WORTH, ODDS = 0.0, False

    learner = Plain(TOLD)
    rows = [reward(i) for i in range(80)]
    learner.learn_many(rows)
    layout = learner.layout
    phi = np.stack([layout.phi(np.array(r["features"], np.float32), ARMS.index(r["arm"])) for r in rows])
    y = np.array([r["quality"] for r in rows])
    constants = [layout.dim + 2 * level + 1 for level in range(5)]  # of s, m, l, 2, 8: each has n and a constant
    mean, precision = np.zeros(layout.size), learner.beliefs.precisions[0].copy()
    mean[constants] = [-0.2, 0.0, 0.2, -0.05, 0.05]
    mean[layout.dim - 1] = 0.675
    precision[np.array(constants)[[0, 2, 3, 4]]] = 30.0
    a = phi.T @ phi + np.diag(precision)
    theta = np.linalg.solve(a, phi.T @ y + precision * mean)
    quality, _ = learner.posteriors()
    np.testing.assert_allclose(quality.theta[:, 0], theta, rtol=1e-8, atol=1e-10)
    residual = ((y - phi @ theta) ** 2).sum() + (precision * (theta - mean) ** 2).sum()
    assert quality.noise[0] == pytest.approx((4 * 0.1 + residual) / 84, rel=1e-8)


def test_rewards_overrule_it_and_a_cost_at_once() -> None:
    wrong = replace(SPEC, prior=PriorSpec(events=50.0, quality={"model": {"s": 0.9, "m": 0.5, "l": 0.5}}))
    x = SPEC.features.encode({"n": 0.0})

    def lead(learner: PolicyLearner) -> float:
        models = by_level(Scorer(learner.snapshot(0)).components(x).quality, "model")
        return models["l"] - models["s"]

    assert lead(PolicyLearner(wrong)) < -0.3
    assert lead(taught(wrong, 1500)) > 0.05
    told = PolicyLearner(TOLD)
    told.learn_many([reward(0, arm=ARMS.index("model=l;k=8"))])
    assert Scorer(told.snapshot(0)).components(x).cost[ARMS.index("model=l;k=8")] < 1000.0


def test_it_is_a_setting_live_saved_and_repeated_to_the_byte() -> None:
    log = [reward(i) for i in range(120)]
    learner = PolicyLearner(SPEC)
    learner.learn_many(log[:60])
    plain = learner.snapshot(0)
    assert learner.revise(TOLD)
    assert learner.snapshot(0).tensors["weights.quality"].tolist() != plain.tensors["weights.quality"].tolist()
    assert (learner.epoch, learner.revision, TOLD.lineage) == (1, 1, SPEC.lineage)
    learner.learn_many(log[60:])
    state = learner.to_state()
    again = PolicyLearner.from_state(TOLD, state)
    assert again.snapshot(0).to_record() == learner.snapshot(0).to_record()
    replayed = rebuild(TOLD, 1, {}, log, {0: (119, 0)}, saved=state)
    assert replayed.snapshot(0).to_record() == learner.snapshot(0).to_record()
    assert "prior" not in settings_of(SPEC)
    assert with_settings(SPEC, settings_of(TOLD)).prior == PRIOR
    assert again.revise(SPEC)
    assert again.spec.prior is None


def test_a_level_that_was_declared_needs_less_of_a_second_look() -> None:
    fresh = PolicyLearner(TOLD).snapshot(0).tensors[SECOND_LOOK]
    declared = [ARMS.index(f"model={model};k=2") for model in "sl"]
    np.testing.assert_allclose(fresh[declared], SECOND / 2, rtol=1e-6)  # 30 events
    assert fresh[ARMS.index("model=m;k=2")] == pytest.approx(SECOND)


def test_shards_add_up_under_it() -> None:
    whole, parts = taught(TOLD, 90), [PolicyLearner(TOLD) for _ in range(3)]
    for i in range(90):
        parts[i % 3].learn_many([reward(i, source_partition=i % 3)])
    total = PolicyLearner(TOLD)
    for part in parts:
        total.merge(part)
    for ours, single in zip(total.posteriors(), whole.posteriors(), strict=True):
        np.testing.assert_allclose(ours.theta, single.theta, rtol=1e-9, atol=1e-12)


def test_nothing_declared_changes_no_bit() -> None:
    learner = taught(SPEC, 50)
    before = learner.snapshot(0).to_record()
    empty = Declared(np.zeros((learner.layout.size, 4)), np.zeros(learner.layout.size, dtype=bool), 20.0)
    quality, others = learner.beliefs.posteriors(learner.moments, learner._factors, empty)
    again, rest = learner.posteriors()
    assert (quality.theta.tolist(), others.theta.tolist()) == (again.theta.tolist(), rest.theta.tolist())
    assert learner.snapshot(0).to_record() == before


TOML = """
[[policy]]
name = "p"
baseline = { model = "l", k = 8 }
[policy.knobs]
model = ["s", "l"]
k = [2, 8]
[policy.prior]
events = 40
[policy.prior.quality.model]
s = 0.7
l = 0.8
[policy.prior.cost_micro_usd.k]
8 = 300.0
"""


def test_it_is_read_from_the_file() -> None:
    spec = parse_policies(TOML).get("default", "p")
    assert spec is not None
    assert spec.prior == PriorSpec(
        events=40.0, quality={"model": {"s": 0.7, "l": 0.8}}, cost_micro_usd={"k": {"8": 300.0}}
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("s = 0.7", "xl = 0.7", ["p.toml:11", "prior.quality.model.xl", "no such level", "s, l"]),
        ("quality.model", "quality.colour", ["prior.quality.colour", "the knobs are model, k"]),
        ("quality.model", "tokens.model", ["prior.tokens", "unknown key"]),
        ("8 = 300.0", "8 = -1.0", ["prior.cost_micro_usd.k.8", "greater than or equal to 0"]),
        ("s = 0.7", "s = nan", ["prior.quality.model.s", "finite"]),
        ("events = 40", "events = 0", ["prior.events", "greater than 0"]),
        ('name = "p"', 'name = "p"\nlearner = "linucb"', ["prior", "'linucb' starts from nothing"]),
        ('name = "p"', 'name = "p"\nlearner = "squarecb:tree.HoeffdingTreeRegressor"', ["starts from nothing"]),
    ],
)
def test_what_is_wrong_with_it_is_said(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policies(TOML.replace(old, new, 1), "p.toml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_table_that_declares_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="declares nothing"):
        parse_policies(TOML.partition("[policy.prior.quality")[0])
    assert not LinUCB.TAKES_PRIOR
