"""The other learners: what each believes, how each explores, and that each finds what there is to be found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learners.exploring import SECOND, floor_of, scale_of, second_look, ucb1_scale
from learners.linucb import LinUCB
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.priors import worth
from learners.registry import make_learner
from learners.river_api import RiverPolicy
from learners.spec import Exploration, PolicySpec, RewardSpec, Weights
from learners.squarecb import SAMPLE, SquareCB, maker_of
from learners.thompson import Thompson
from learners.ucb1 import Ucb1
from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import Categorical, FeatureSpec
from steersman.layout import make_layout
from steersman.scoring import Scorer
from steersman.snapshot import COVARIANCE, SECOND_LOOK
from tests.learners.test_policy_learner import SPEC, reward

ONE_KNOB = PolicySpec(
    "default",
    SPEC.name,
    ArmSpace({"model": ["s", "m", "l"]}),
    "model=l",
    FeatureSpec(features=(Categorical(name="c", values=("x", "y")),)),
)
CONTEXTUAL = ["linear", "thompson", "squarecb", "squarecb:tree.HoeffdingTreeRegressor", "linucb", "epsilon_greedy"]


@pytest.mark.parametrize("name", [*CONTEXTUAL, "ucb1"])
def test_every_learner_finds_the_best_arm_as_a_bandit_of_river(name: str) -> None:
    policy = RiverPolicy(replace(ONE_KNOB, learner=name), refresh=100 if "tree" in name else 10, seed=1)
    rng = np.random.default_rng(0)
    right = []
    for i in range(900):
        context = {"c": "x" if rng.random() < 0.5 else "y"}
        best = {"x": "model=s", "y": "model=m"}[context["c"]] if name in CONTEXTUAL else "model=m"
        arm = policy.pull(list(ONE_KNOB.arms.labels), context=context)
        policy.update(arm, context, float(rng.random() < (0.9 if arm == best else 0.3)))
        right.append(arm == best)
        assert i < 600 or abs(policy.scores(list(ONE_KNOB.arms.labels), context).propensity.sum() - 1) < 1e-12
    assert np.mean(right[-300:]) > 0.8


def test_linucb_is_one_ridge_regression_per_arm() -> None:
    learner = LinUCB(replace(ONE_KNOB, learner="linucb"))
    rows = [
        reward(i, arm=f"model={'sml'[i % 3]}", features=[float(i % 2), float(i % 2 == 0), 1.0],
               quality=float((i * 7 % 10) / 10), reward_spec=ONE_KNOB.reward_hash)
        for i in range(60)
    ]  # fmt: skip
    learner.learn_many(rows)
    snapshot = learner.snapshot(0)
    scorer = Scorer(snapshot)
    x = np.array([1.0, 0.0, 1.0], dtype=np.float32)
    for k, label in enumerate(ONE_KNOB.arms.labels):
        own = [r for r in rows if r["arm"] == label]
        phi = np.array([r["features"] for r in own])
        a = phi.T @ phi + np.eye(3)
        theta = np.linalg.solve(a, phi.T @ [r["quality"] for r in own])
        assert scorer.components(x).quality[k] == pytest.approx(theta @ x, abs=1e-6)
        variance = scorer._variance[k] @ (x[scorer._squares[0]] * x[scorer._squares[1]])
        noise = learner.posteriors()[0].noise[0]
        assert variance == pytest.approx(noise * (x @ np.linalg.inv(a) @ x), rel=1e-4)
    bound = scorer.score(x).utility + 0.75 * np.sqrt(
        [scorer._variance[k] @ (x[scorer._squares[0]] * x[scorer._squares[1]]) for k in range(3)]
    )
    chances = scorer.score(x).propensity
    assert chances.argmax() == bound.argmax()
    assert chances.max() == pytest.approx(1 - snapshot.floor * 2 / 3)


def test_ucb1_has_its_bonus_and_takes_what_was_never_taken() -> None:
    learner = Ucb1(replace(ONE_KNOB, learner="ucb1"))
    counts = {"model=s": 30, "model=m": 5}
    rows = [
        reward(i, arm="model=m" if i % 7 == 6 else "model=s", quality=0.5, reward_spec=ONE_KNOB.reward_hash,
               features=[1.0, 0.0, 1.0])
        for i in range(35)
    ]  # fmt: skip
    learner.learn_many(rows)
    snapshot = learner.snapshot(0)
    assert snapshot.exploration_scale == pytest.approx(0.3 * np.log(35) ** 0.5)
    assert ucb1_scale(35, 1.0) == pytest.approx(np.log(35) ** 0.5)
    scorer = Scorer(snapshot)
    x = np.array([0.0, 1.0, 1.0], dtype=np.float32)
    variance = scorer._variance @ (x[scorer._squares[0]] * x[scorer._squares[1]])
    for k, label in enumerate(ONE_KNOB.arms.labels):
        assert variance[k] == pytest.approx(1 / (counts.get(label, 0) + 1e-3), rel=1e-3)
    assert scorer.score(x).propensity.argmax() == 2


def test_squarecb_weighs_gaps_more_and_more() -> None:
    spec = replace(SPEC, learner="squarecb")
    learner = make_learner(spec)
    assert learner.snapshot(0).exploration_scale == pytest.approx(10.0)
    learner.learn_many([reward(i) for i in range(99)])
    snapshot = learner.snapshot(0)
    assert (snapshot.exploration, snapshot.exploration_scale) == ("igw", pytest.approx(100.0))
    scores = Scorer(snapshot).score(np.array([0.3, 1.0, 0.0, 1.0], dtype=np.float32))
    gap = scores.utility.max() - scores.utility
    chance = 1 / (len(gap) + 100.0 * gap)
    chance[gap == 0] = 0
    chance[gap == 0] = 1 - chance.sum()
    np.testing.assert_allclose(scores.propensity, (1 - snapshot.floor) * chance + snapshot.floor / len(gap), rtol=1e-9)


def test_the_sample_of_squarecb_does_not_depend_on_the_order_and_is_bounded() -> None:
    spec = replace(SPEC, learner="squarecb:linear_model.LinearRegression")
    rewards = [reward(i, source_partition=-1) for i in range(SAMPLE + 400)]
    forward, backward, half = SquareCB(spec), SquareCB(spec), SquareCB(spec)
    forward.learn_many(rewards)
    backward.learn_many(rewards[::-1])
    half.learn_many(rewards[:300])
    other = SquareCB(spec)
    other.learn_many(rewards[300:])
    half.merge(other)
    assert len(forward.sample) == SAMPLE
    assert forward.sample == backward.sample == half.sample
    assert SquareCB.from_state(spec, forward.to_state()).sample == forward.sample
    changed = replace(spec, learner="squarecb:tree.HoeffdingTreeRegressor")
    assert SquareCB.from_state(changed, forward.to_state()).epoch == 2


def test_the_linear_image_of_a_linear_regressor_is_the_regressor() -> None:
    spec = replace(SPEC, learner="squarecb:linear_model.LinearRegression")
    learner = SquareCB(spec)
    learner.learn_many([reward(i) for i in range(300)])
    model = learner._taught(maker_of("linear_model.LinearRegression")())
    scorer, x = Scorer(learner.snapshot(0)), learner.sample[0].x
    predicted = [model.predict_one(learner._inputs(x, arm)) for arm in range(len(spec.arms))]
    np.testing.assert_allclose(scorer.components(np.array(x, dtype=np.float32)).quality, predicted, atol=2e-3)
    assert learner.snapshot(0).tensors[COVARIANCE].shape == PolicyLearner(SPEC).snapshot(0).tensors[COVARIANCE].shape
    assert make_layout(spec.arms, spec.features).size == len(learner.snapshot(0).tensors["weights.quality"])


@pytest.mark.parametrize("name", ["os.system", "linear_model.Nothing", "stats.Mean", "x", "compose.Pipeline", "__a.B"])
def test_what_is_no_regressor_of_river_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="squarecb:"):
        maker_of(name)


def test_a_policy_names_learner_and_rule() -> None:
    text = """
[[policy]]
name = "p"
learner = "squarecb:linear_model.LinearRegression"
baseline = { model = "s" }
[policy.knobs]
model = ["s", "l"]
"""
    spec = parse_policies(text).get("default", "p")
    assert spec is not None
    assert make_learner(spec).snapshot(0).exploration == "igw"
    soft = replace(spec, exploration=Exploration(kind="softmax", scale=0.1, floor=0.0))
    snapshot = make_learner(soft).snapshot(0)
    assert (snapshot.exploration, snapshot.exploration_scale, snapshot.floor) == ("softmax", 0.1, 0.0)
    with pytest.raises(ConfigError, match="no learner is called"):
        parse_policies(text.replace("squarecb:", "circlecb:"))


@pytest.mark.parametrize("kind", ["maillard", "thompson"])
def test_it_explores_as_widely_as_the_evidence_is_thin(kind: str) -> None:
    learner = PolicyLearner(replace(ONE_KNOB, exploration=Exploration(kind=kind)))
    begun = learner.scale()
    learner.learn_many([
        reward(i, arm=f"model={'sml'[i % 3]}", features=[float(i % 2), float(i % 2 == 0), 1.0],
               reward_spec=ONE_KNOB.reward_hash) for i in range(500)
    ])  # fmt: skip
    assert learner.snapshot(0).exploration_scale == pytest.approx(begun / 1.5**0.5)
    learner._forget(np.full(3, 0.1))  # as after an alarm: what is out of date is no reason to be sure
    assert learner.version == 500
    assert learner.snapshot(0).exploration_scale == pytest.approx(begun / 1.05**0.5)


def test_defaults_of_scale_and_floor() -> None:
    assert scale_of("maillard", 10, 0) == scale_of("thompson", 10, 0) == pytest.approx(0.2)
    assert scale_of("maillard", 10, 1000) == scale_of("thompson", 10, 1000) == pytest.approx(0.2 / 2**0.5)
    assert scale_of("maillard", 10, 1000, 0.3) == 0.3
    assert scale_of("maillard", 2, 0) > scale_of("maillard", 100, 0)
    assert scale_of("ucb", 2, 5, 0.4) == 0.4
    assert scale_of("igw", 2, 99, 3.0) == pytest.approx(30.0)
    assert floor_of("maillard", 0) == 0.02
    assert floor_of("maillard", 150) == 0.005
    assert floor_of("maillard", 1e9) == 0.001
    assert floor_of("greedy", 1e9) == 0.05
    assert floor_of("ucb", 1e9, 0.3) == 0.3


def test_a_dearer_level_is_expected_to_be_worth_its_price_up_to_a_limit() -> None:
    assert worth(np.array([0.3, 0.31, 5.0]), 0.05) == pytest.approx([0.0, 0.05 * (1 - np.exp(-0.2)), 0.05])
    spec = replace(ONE_KNOB, reward=RewardSpec(weights=Weights(cost=1.0)))
    cheap, dear = ({"arm": f"model={m}", "cost_micro_usd": c} for m, c in (("s", 0), ("l", 200)))
    rows = [
        reward(
            i,
            quality=None,
            features=[1.0, 0.0, 1.0],
            latency_us=0,
            reward_spec=spec.reward_hash,
            **(cheap, dear)[i % 2],
        )
        for i in range(200)
    ]
    learner = PolicyLearner(spec)
    learner.learn_many(rows)
    x = np.array([1.0, 0.0, 1.0], dtype=np.float32)
    found = Scorer(learner.snapshot(0)).components(x)
    assert found.cost[2] - found.cost[0] == pytest.approx(200, rel=0.02)
    most = 0.2 * 0.1**0.5
    assert found.quality[2] - found.quality[0] == pytest.approx(most * (1 - np.exp(-0.02 / most)), rel=0.05)
    free = PolicyLearner(replace(spec, reward=RewardSpec()))
    free.learn_many(rows)
    assert not free.snapshot(0).tensors["weights.quality"].any()


def test_a_second_look_is_for_arms_with_a_level_that_is_little_known() -> None:
    level_of = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    np.testing.assert_allclose(second_look(np.array([0.0, 970.0]), level_of), [SECOND, 0.03 * SECOND])
    np.testing.assert_allclose(second_look(np.zeros(2), level_of), SECOND)


def test_an_arm_that_failed_by_bad_luck_is_not_given_up() -> None:
    """Three failures of one arm, eighty answers of the other of which six in ten are right."""
    learner = PolicyLearner(ONE_KNOB)
    unlucky, usual, _ = ONE_KNOB.arms.labels
    outcomes = [(unlucky, 0.0)] * 3 + [(usual, float(i % 5 < 3)) for i in range(80)]
    rewards = [
        reward(i, arm=arm, quality=quality, reward_spec=ONE_KNOB.reward_hash, features=[1.0, 0.0, 1.0])
        for i, (arm, quality) in enumerate(outcomes)
    ]
    for one in rewards:
        one["policy"] = ONE_KNOB.name
    assert learner.learn_many(rewards).applied == 83
    snapshot = replace(learner.snapshot(0), floor=0.0)
    x, at = np.array([1.0, 0.0, 1.0], dtype=np.float32), ONE_KNOB.arms.index(unlucky)
    plain = replace(snapshot, tensors={k: v for k, v in snapshot.tensors.items() if k != SECOND_LOOK})
    assert Scorer(plain).score(x).propensity[at] < 1e-4
    assert Scorer(snapshot).score(x).propensity[at] > 1e-3
    assert SECOND_LOOK not in Thompson(replace(ONE_KNOB, learner="thompson")).snapshot(0).tensors
