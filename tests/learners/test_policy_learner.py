from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.policy_learner import PolicyLearner
from learners.registry import learner_class, make_learner, restore_learner
from learners.spec import Exploration, PolicySpec, RewardSpec, Scales, Weights
from learners.state import StateError
from steersman.arms import ArmSpace
from steersman.errors import ConfigError, SnapshotError
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.scoring import Scorer, draw
from steersman.snapshot import COVARIANCE, HEADS

SPEC = PolicySpec(
    tenant="default",
    name="research/retrieval",
    arms=ArmSpace({"model": ["s", "l"], "k": [2, 4, 8]}, [{"model": "s", "k": 8}]),
    baseline="model=l;k=8",
    features=FeatureSpec(features=(Numeric(name="n"), Categorical(name="c", values=("x", "y")))),
    reward=RewardSpec(weights=Weights(cost=0.5, latency=0.1), scales=Scales(cost_micro_usd=1e4, latency_us=1e6)),
)


def reward(i: int, **changes: Any) -> dict[str, Any]:
    """A plausible reward record, the i-th of partition 0."""
    rng = np.random.default_rng(i)
    c = rng.integers(3)
    return {
        "decision_id": f"d{i}",
        "tenant": "default",
        "policy": "research/retrieval",
        "policy_epoch": 1,
        "arm": SPEC.arms.labels[rng.integers(len(SPEC.arms))],
        "mode": "LIVE",
        "features": [float(np.float32(rng.normal())), float(c == 0), float(c == 1), 1.0],
        "quality": None if rng.random() < 0.2 else float(rng.random()),
        "cost_micro_usd": int(rng.integers(20_000)),
        "latency_us": int(rng.integers(5_000_000)),
        "failures": int(rng.integers(2)),
        "reward_spec": SPEC.reward_hash,
        "source_partition": 0,
        "source_offset": i,
        "seq": 0,
        **changes,
    }


def taught(n: int, spec: PolicySpec = SPEC) -> PolicyLearner:
    learner = PolicyLearner(spec)
    learner.learn_many([reward(i, reward_spec=spec.reward_hash) for i in range(n)])
    return learner


@settings(max_examples=25, derandomize=True, deadline=None)
@given(n=st.integers(1, 200), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_batches_equal_single_rewards_to_the_bit(n: int, cuts: list[int]) -> None:
    rewards = [reward(i) for i in range(n)]
    one, many = PolicyLearner(SPEC), PolicyLearner(SPEC)
    for r in rewards:
        one.learn_one(r)
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    for start, end in pairwise(edges):
        many.learn_many(rewards[start:end])
    assert one.to_state() == many.to_state()
    assert one.version == n


def test_order_does_not_matter() -> None:
    rewards = [reward(i, source_partition=-1) for i in range(300)]
    forward, backward = PolicyLearner(SPEC), PolicyLearner(SPEC)
    forward.learn_many(rewards)
    backward.learn_many(rewards[::-1])
    assert forward.applied_hash == backward.applied_hash
    for name, tensor in forward.snapshot(0).tensors.items():
        np.testing.assert_allclose(backward.snapshot(0).tensors[name], tensor, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(forward.moments.sums, backward.moments.sums, rtol=1e-9)


def test_shards_add_up() -> None:
    whole = PolicyLearner(SPEC)
    shards = [PolicyLearner(SPEC) for _ in range(3)]
    for i in range(300):
        r = reward(i, source_partition=i % 3)
        whole.learn_one(r)
        shards[i % 3].learn_one(r)
    total = shards[0]
    total.merge(shards[1])
    total.merge(shards[2])
    np.testing.assert_allclose(total.moments.sums, whole.moments.sums, rtol=1e-9)
    assert (total.version, total.applied_hash, total.sources) == (300, whole.applied_hash, whole.sources)
    with pytest.raises(ValueError, match="twice"):
        total.merge(shards[1])
    with pytest.raises(ValueError, match="lineage"):
        total.merge(PolicyLearner(SPEC, epoch=2))


@pytest.mark.parametrize("n_shards", [1, 2, 4])
def test_shards_statistics_make_the_weights_of_a_single_learner(n_shards: int) -> None:
    rewards = [reward(i, source_partition=i % n_shards) for i in range(600)]
    whole = PolicyLearner(SPEC)
    whole.learn_many(rewards)
    shards = []
    for shard in range(n_shards):
        learner = PolicyLearner(SPEC)
        learner.learn_many(rewards[shard::n_shards])
        shards.append(PolicyLearner.from_state(SPEC, learner.to_state()))  # as another worker would send it
    total = PolicyLearner(SPEC)
    for learner in reversed(shards):
        total.merge(learner)
    for ours, single in zip(total.posteriors(), whole.posteriors(), strict=True):
        largest = np.abs(single.theta).max(axis=0)
        assert (np.abs(ours.theta - single.theta) <= 1e-9 * largest).all()
        np.testing.assert_allclose(ours.noise, single.noise, rtol=1e-9)
        np.testing.assert_allclose(ours.covariance(), single.covariance(), rtol=1e-9, atol=1e-12)
    assert (total.version, total.applied_hash, total.sources) == (600, whole.applied_hash, whole.sources)


def expected_worth(learner: PolicyLearner, context: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the levels are expected to be worth: 0.2 noise deviations (1 - exp(-their price over the cheapest / that))."""
    quality, others = learner.posteriors()
    most = 0.2 * float(quality.noise[0]) ** 0.5
    layout, mean = make_layout(SPEC.arms, SPEC.features), np.zeros(make_layout(SPEC.arms, SPEC.features).size)
    m = len(layout.columns)
    for first, last in ((0, 2), (2, 5)):  # levels of model, of k
        price = np.array([
            sum(others.theta[layout.dim + level * m + c] @ [0.5, 0.1, 0.0] * context[c] for c in range(m))
            for level in range(first, last)
        ])  # fmt: skip
        for level in range(first, last):
            mean[layout.dim + level * m + m - 1] = most * (1 - np.exp(-(price[level - first] - price.min()) / most))
    return mean


def in_log_odds(
    given: np.ndarray[Any, Any], rows: list[dict[str, Any]], phi: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Prior precisions of quality: those of effects of n and c on the five levels times noise / (m (1 - m))^2."""
    y = np.array([r["quality"] for r in rows])
    plain = np.linalg.solve(phi.T @ phi + np.diag(given), phi.T @ y)
    noise = (4 * 0.1 + y @ y - plain @ phi.T @ y) / (4 + len(y))
    m = (y.sum() + 0.5) / (len(y) + 1)
    made = given.copy()
    for level in range(5):
        made[4 + 4 * level : 4 + 4 * level + 3] *= noise / (m * (1 - m)) ** 2
    return made


def expected_where_most_fail(theta: np.ndarray[Any, Any], rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """Prior mean of the effects of c: minus a part of each level's effect, where quality s < 1/2 leaves less room than on average."""
    y, x = np.array([r["quality"] for r in rows]), np.array([r["features"] for r in rows])
    m, mean = (y.sum() + 0.5) / (len(y) + 1), np.zeros(len(theta))
    for column in (1, 2):
        s = (y[x[:, column] == 1].sum() + m) / ((x[:, column] == 1).sum() + 1)
        for level in range(5):
            at = 4 + 4 * level
            if s < 0.5:
                mean[at + column] = (min(1.0, s * (1 - s) / (m * (1 - m))) - 1) * (theta[at : at + 4] @ x.mean(axis=0))
    return mean


def test_weights_equal_a_plain_bayesian_regression() -> None:
    learner = taught(400)
    layout = make_layout(SPEC.arms, SPEC.features)
    rows = [reward(i) for i in range(400)]
    phi = np.stack([layout.phi(np.array(r["features"]), SPEC.arms.index(r["arm"])) for r in rows])
    rated = np.array([r["quality"] is not None for r in rows])
    targets = {
        "quality": np.array([r["quality"] or 0.0 for r in rows]),
        "cost": np.array([r["cost_micro_usd"] / 1e4 for r in rows]),
        "latency": np.array([r["latency_us"] / 1e6 for r in rows]),
        "failures": np.array([r["failures"] for r in rows], dtype=float),
    }
    scales = {"quality": 1, "cost": 1e4, "latency": 1e6, "failures": 1}
    snapshot = learner.snapshot(now_us=9)
    for head in HEADS:
        used = rated if head == "quality" else np.ones(len(rows), dtype=bool)
        prior = learner.beliefs.precisions[head != "quality"]
        judged = [r for r in rows if r["quality"] is not None]
        if head == "quality":
            prior = in_log_odds(prior, judged, phi[used])
        a = phi[used].T @ phi[used] + np.diag(prior)
        theta = np.linalg.solve(a, phi[used].T @ targets[head][used])
        plain, moved = theta, np.zeros(layout.size)
        if head == "quality":
            moved = expected_worth(learner, np.stack([r["features"] for r in rows]).mean(axis=0))
            theta = theta + np.linalg.solve(a, prior * moved)
            theta = theta + np.linalg.solve(a, prior * expected_where_most_fail(theta, judged))
        np.testing.assert_allclose(
            snapshot.tensors[f"weights.{head}"], theta * scales[head], rtol=1e-5, atol=1e-6 * scales[head]
        )
        if head == "quality":
            y = targets[head][used]
            noise = (4 * 0.1 + y @ y - plain @ (phi[used].T @ y)) / (4 + used.sum())
            cov = (np.linalg.inv(a) * noise)[layout.dim :, layout.dim :]
            np.testing.assert_allclose(snapshot.tensors[COVARIANCE], cov[np.tril_indices(len(cov))], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quality": float("nan")}, "not_finite"),
        ({"quality": float("inf")}, "not_finite"),
        ({"cost_micro_usd": float("nan")}, "not_finite"),
        ({"arm": "model=s;k=8"}, "unknown_arm"),
        ({"features": [1.0, 1.0]}, "wrong_dims"),
        ({"features": [float("nan"), 0.0, 0.0, 1.0]}, "bad_features"),
        ({"features": [0.5, float("nan"), 0.0, 1.0]}, "bad_features"),
        ({"features": [0.0, 0.0, float("-inf"), 1.0]}, "bad_features"),
        ({"features": [0.0, -1001.0, 0.0, 1.0]}, "bad_features"),
        ({"features": [0.0, 1001.0, 0.0, 1.0]}, "bad_features"),
        ({"features": [0.0, 0.0, 0.0, 2.0]}, "bad_features"),
        ({"features": [], "mode": "FALLBACK"}, "fallback"),
        ({"features": []}, "no_features"),
        ({"reward_spec": "0" * 16}, "other_reward_spec"),
        ({"policy_epoch": 0}, "other_epoch"),
        ({"tenant": "else"}, "other_policy"),
    ],
)
def test_unfit_rewards_are_skipped_and_counted(changes: dict[str, Any], reason: str) -> None:
    learner = taught(50)
    before = learner.moments.sums.copy()
    report = learner.learn_many([reward(50, **changes)])
    assert (report.applied, dict(report.skipped)) == (0, {reason: 1})
    np.testing.assert_array_equal(learner.moments.sums, before)
    assert learner.version == 50
    assert learner.sources == {0: (50, 0)}  # read, so it is not read again


def test_rewards_without_quality_teach_the_other_heads() -> None:
    learner = PolicyLearner(SPEC)
    report = learner.learn_many([reward(i, quality=None) for i in range(20)])
    assert (report.applied, report.without_quality) == (20, 20)
    tensors = learner.snapshot(0).tensors
    assert tensors["weights.quality"].max() <= 0.2 * 0.1**0.5  # no more than that dearer levels may be worth it
    assert np.count_nonzero(tensors["weights.quality"]) == 3  # of five levels, two are the cheapest of their knobs
    assert tensors["weights.cost"].any()


def test_provenance_drops_what_was_seen() -> None:
    learner = taught(10)
    report = learner.learn_many([reward(i) for i in range(12)])
    assert (report.applied, report.duplicates) == (2, 10)
    assert learner.learn_one(reward(11, seq=1, decision_id="other")).applied == 1
    assert learner.learn_one(reward(3, source_partition=5)).applied == 1
    assert learner.learn_one(reward(3, source_partition=-1)).applied == 1
    assert learner.learn_one(reward(3, source_partition=-1)).applied == 1
    assert learner.version == 16
    sources = [(s.partition, s.offset, s.seq) for s in learner.snapshot(0).applied_sources]
    assert sources == [(0, 11, 1), (5, 3, 0)]


def test_outliers_are_clipped() -> None:
    learner = PolicyLearner(SPEC)
    assert learner.learn_one(reward(0, latency_us=10**12)).clipped == 1
    assert np.abs(learner.snapshot(0).tensors["weights.latency"]).max() <= 100 * 1e6


def test_state_round_trip_goes_on_to_the_bit() -> None:
    learner = taught(120)
    state = learner.to_state()
    again = PolicyLearner.from_state(SPEC, state)
    assert again.to_state() == state
    for one in (learner, again):
        one.learn_many([reward(i) for i in range(100, 200)])
    assert again.to_state() == learner.to_state()
    assert again.snapshot(7).to_record() == learner.snapshot(7).to_record()
    assert again.version == 200


def test_damaged_and_foreign_states_are_refused() -> None:
    state = taught(5).to_state()
    for bad in (b"", b"nonsense" * 20, state[:-1], state[:60] + b"!" + state[61:], b"SLRN\x09" + state[5:]):
        with pytest.raises(StateError):
            PolicyLearner.from_state(SPEC, bad)
    other = PolicySpec("default", "else", SPEC.arms, SPEC.baseline, SPEC.features, SPEC.reward)
    with pytest.raises(StateError, match="research/retrieval"):
        PolicyLearner.from_state(other, state)


def test_a_changed_definition_starts_the_next_epoch() -> None:
    state = taught(30).to_state()
    rewritten = PolicySpec("default", SPEC.name, SPEC.arms, SPEC.baseline, SPEC.features, RewardSpec(metric="x"))
    learner = PolicyLearner.from_state(rewritten, state)
    assert (learner.epoch, learner.version) == (2, 0)
    assert learner.sources == {0: (29, 0)}
    old = reward(40, reward_spec=rewritten.reward_hash)
    assert learner.learn_one(old).skipped == {"other_epoch": 1}
    weights = SPEC.reward.model_copy(update={"weights": Weights(cost=9.0)})
    same = PolicySpec("default", SPEC.name, SPEC.arms, SPEC.baseline, SPEC.features, weights)
    assert PolicyLearner.from_state(same, state).version == 30


def test_snapshots() -> None:
    snapshot = taught(30).snapshot(now_us=123)
    assert (snapshot.version, snapshot.applied_n, snapshot.epoch, snapshot.created_at) == (30, 30, 1, 123)
    assert [(t.component, t.weight) for t in snapshot.objective] == [
        ("quality", 1.0),
        ("cost", -0.5),
        ("latency", -0.1),
        ("failures", -0.0),
    ]
    assert -(2**63) <= snapshot.applied_hash < 2**63
    assert PolicyLearner(SPEC).snapshot(0).version == 0
    broken = taught(3)
    broken.moments.sums[:, :, 0] = np.nan
    with pytest.raises(SnapshotError, match="nothing to publish"):
        broken.snapshot(0)


def test_progressive_validation() -> None:
    learner = taught(100)
    assert learner.errors["quality"].get() == 0.0  # no weights were solved before
    learner.snapshot(0)
    learner.learn_many([reward(i) for i in range(100, 200)])
    assert 0.1 < learner.errors["quality"].get() < 0.5
    assert 0.1 < learner.errors["cost"].get() < 1.0
    assert learner.utility.n == sum(reward(i)["quality"] is not None for i in range(200))


@pytest.mark.parametrize("kind", ["maillard", "greedy"])
def test_it_learns_which_arm_is_best_for_which_context(kind: str) -> None:
    spec = PolicySpec("default", SPEC.name, SPEC.arms, SPEC.baseline, SPEC.features, exploration=Exploration(kind=kind))
    learner, rng = PolicyLearner(spec), np.random.default_rng(0)
    scorer, won = Scorer(learner.snapshot(0)), []
    for i in range(1500):
        easy = bool(rng.integers(2))
        x = spec.features.encode({"c": "x" if easy else "y"})
        arm = draw(scorer.score(x).propensity, rng.random())
        best = spec.arms.labels[arm] == ("model=s;k=2" if easy else "model=l;k=8")
        won.append(best)
        changes = {"features": x.tolist(), "arm": spec.arms.labels[arm], "reward_spec": spec.reward_hash}
        learner.learn_one(reward(i, quality=float(rng.random() < (0.9 if best else 0.4)), **changes))
        if i % 20 == 19:
            scorer = Scorer(learner.snapshot(0))
    assert np.mean(won[-300:]) > 0.85


def test_registry() -> None:
    assert learner_class("linear") is PolicyLearner
    learner = make_learner(SPEC, epoch=4)
    assert learner.epoch == 4
    assert restore_learner(SPEC, learner.to_state()).epoch == 4
    with pytest.raises(ConfigError, match="linear"):
        learner_class("magic")
