"""What a learner keeps beside its sums is as exact, replayable and bounded as the sums."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.drift import DELTA, FRESH, KEPT, KEPT_OTHERS, KNOWN, LIFTED, THRESHOLD, WAKE, DriftWatch, keeping
from learners.influence import CROWD, FREE, LEAST, LEAST_DELTA, LEVERAGE, SHARE, Clip, SourceShares, leverage_weight
from learners.lineage import head_of, rebuild, vector_of
from learners.policy_learner import PolicyLearner
from learners.revision import MAX_REVISIONS, settings_of, with_settings
from learners.spec import Ceilings, Exploration, Learning, PolicySpec, Weights
from learners.squarecb import SquareCB
from learners.state import Origin
from learners.succession import NEIGHBOURS
from steersman.arms import ArmSpace
from steersman.codec import Codec
from tests.learners.test_policy_learner import SPEC, reward

CODEC = Codec("policy_snapshot")


def with_ceilings(spec: PolicySpec, **ceilings: float) -> PolicySpec:
    return replace(spec, reward=spec.reward.model_copy(update={"ceilings": Ceilings(**ceilings)}))


def with_weights(spec: PolicySpec, **weights: float) -> PolicySpec:
    return replace(spec, reward=spec.reward.model_copy(update={"weights": Weights(**weights)}))


FULL = replace(
    with_ceilings(SPEC, cost_micro_usd=6000.0, latency_us_p95=4e6, failures=0.4),
    learning=Learning(half_life=100.0, drift=True),
)


def drifting(i: int, **changes: Any) -> dict[str, Any]:
    """The i-th reward of a world that changes at 260."""
    made = reward(i, policy_version=max(0, i - 7), source=f"u{i % 30}", **changes)
    if i >= 260 and made["quality"] is not None:
        made["quality"] -= 3.0
    return made


def record(learner: PolicyLearner) -> dict[str, Any]:
    return CODEC.decode(CODEC.encode(learner.snapshot(5).to_record()))


@settings(max_examples=15, derandomize=True, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=8), restart=st.integers(0, 400))
def test_pacing_forgetting_and_drift_leave_the_same_bytes_however_the_log_is_cut(cuts: list[int], restart: int) -> None:
    log = [drifting(i) for i in range(400)]
    one, many = PolicyLearner(FULL), PolicyLearner(FULL)
    alarms = one.learn_many(log).alarms
    edges = [0, *sorted({*cuts, restart}), 400]
    seen: list[Any] = []
    for start, end in pairwise(edges):
        if start == restart:
            many = PolicyLearner.from_state(FULL, many.to_state())
        seen += many.learn_many(log[start:end]).alarms
    assert one.to_state() == many.to_state()
    assert one.snapshot(5).to_record() == many.snapshot(5).to_record()
    assert list(alarms) == seen
    assert any(260 < version < 380 and alarm.component == 0 for version, alarm in alarms)


def test_changed_settings_are_on_record_and_a_replay_makes_the_same_policy() -> None:
    other = replace(with_weights(FULL, cost=2.0), exploration=Exploration(floor=0.3))
    priced = replace(other, prices={"model": {"s": 1.0, "l": 4.0}})
    dearer = replace(priced, prices={"model": {"s": 1.0, "l": 8.0}})
    log = [drifting(i) for i in range(300)]
    learner = PolicyLearner(FULL)
    published = []
    for start, spec in ((0, FULL), (60, other), (60, priced), (140, dearer), (200, FULL)):
        assert learner.revise(spec) == (start > 0)
        published.append(record(learner))
        learner.learn_many(log[start : start + 60])
    published.append(record(learner))
    state = learner.to_state()
    assert PolicyLearner.from_state(FULL, state).to_state() == state
    assert [r["revision"] for r in published] == [0, 1, 2, 3, 4, 4]
    origin = Origin.of(state)
    replayed = log[:120] + log[140:260]
    again = rebuild(SPEC, 1, {}, replayed, origin.sources, state)
    assert again.to_state() == state
    for found in published:
        made = rebuild(SPEC, 1, {}, replayed, vector_of(found), state, found["revision"])
        assert made.snapshot(5).to_record() == found | {"tensors": made.snapshot(5).to_record()["tensors"]}
        assert made.snapshot(5).to_record()["tensors"] == found["tensors"]
    assert [head_of(r).from_log for r in published] == [True, False, False, False, False, False]


def test_settings_come_back_from_json() -> None:
    spec = replace(FULL, prices={"model": {"s": 0.5}}, baseline="model=s;k=2")
    again = with_settings(SPEC, json.loads(json.dumps(settings_of(spec))))
    assert settings_of(again) == settings_of(spec)
    assert (again.reward.ceilings, again.learning, again.lineage) == (spec.reward.ceilings, spec.learning, spec.lineage)


def test_too_many_revisions_begin_an_epoch_with_all_that_was_learned() -> None:
    learner = PolicyLearner(SPEC)
    learner.learn_many([reward(i) for i in range(50)])
    for i in range(MAX_REVISIONS + 1):
        learner.revise(with_weights(SPEC, cost=1.0 + i))
    following = PolicyLearner.from_state(learner.spec, learner.to_state())
    assert (following.epoch, following.version) == (2, 0)
    np.testing.assert_array_equal(following.moments.sums, learner.moments.sums)
    assert not head_of(record(following)).from_log


def test_a_price_known_in_advance_changes_the_next_decision() -> None:
    spec = replace(SPEC, prices={"model": {"s": 1.0, "l": 10.0}})
    learner = PolicyLearner(spec)
    costs = {"s": 1000.0, "l": 10_000.0}
    learner.learn_many([
        reward(i, cost_micro_usd=costs[reward(i)["arm"][6]]) for i in range(400)
    ])  # fmt: skip
    before = learner.snapshot(1).tensors["weights.cost"].copy()
    learner.revise(replace(spec, prices={"model": {"s": 1.0, "l": 5.0}}))
    x = SPEC.features.encode({})
    phi = [learner.layout.phi(x, a) for a in range(len(SPEC.arms))]
    after = learner.snapshot(1).tensors["weights.cost"]
    for a, label in enumerate(SPEC.arms.labels):
        large = "model=l" in label
        assert phi[a] @ before == pytest.approx(10_000 if large else 1000, rel=0.03)
        assert phi[a] @ after == pytest.approx(5000 if large else 1000, rel=0.03)
    assert PolicyLearner.from_state(learner.spec, learner.to_state()).to_state() == learner.to_state()


def test_a_new_level_begins_between_its_neighbours_and_the_rest_is_carried_over() -> None:
    arms = ArmSpace({"k": [2, 8], "m": ["a", "b"]})
    spec = replace(SPEC, arms=arms, baseline="k=2;m=a", prices={"k": {"2": 1.0, "8": 4.0}})
    learner = PolicyLearner(spec)
    for i in range(400):
        arm = arms.labels[i % 4]
        quality = {"2": 0.2, "8": 0.8}[arm[2]] + 0.1 * arm.endswith("b")
        learner.learn_one(
            reward(i, arm=arm, quality=quality, cost_micro_usd=1000.0 * float(arm[2]), features=[0.0, 0.0, 0.0, 1.0])
        )
    wider = replace(
        spec, arms=ArmSpace({"k": [4, 2, 8], "m": ["a", "b"]}), prices={"k": {"2": 1.0, "4": 2.0, "8": 4.0}}
    )
    following = PolicyLearner.from_state(wider, learner.to_state())
    assert (following.epoch, following.version, following.began) == (2, 0, learner.sources)
    old = [following.moments.sums[wider.arms.index(label)] for label in arms.labels]
    np.testing.assert_array_equal(old, learner.moments.sums)
    x = np.array([0.0, 0.0, 0.0, 1.0])
    snapshot = following.snapshot(1)
    guess = {
        a: following.layout.phi(x, i) @ snapshot.tensors["weights.quality"] for i, a in enumerate(wider.arms.labels)
    }
    assert guess["k=2;m=a"] < guess["k=4;m=a"] < guess["k=8;m=a"]
    assert guess["k=4;m=b"] > guess["k=4;m=a"]
    cost = {a: following.layout.phi(x, i) @ snapshot.tensors["weights.cost"] for i, a in enumerate(wider.arms.labels)}
    assert cost["k=4;m=a"] == pytest.approx(4000, rel=0.3)
    plain = PolicyLearner(wider).snapshot(1)
    assert snapshot.exploration_scale > 2 * plain.exploration_scale
    assert following.scale() == PolicyLearner(wider).scale(), "what is known of the others does not narrow it"
    assert snapshot.floor == LIFTED > plain.floor
    assert snapshot.inherited
    new = [i for i, arm in enumerate(wider.arms.arms) if arm["k"] == 4]
    assert following.moments.counts[new].sum() == pytest.approx(NEIGHBOURS), (
        "told once, not once for every arm with the level"
    )
    log = [reward(i, arm=wider.arms.labels[i % 6], policy_epoch=2) for i in range(400, 520)]
    following.learn_many(log)
    assert following.floor() < following.snapshot(1).floor < LIFTED / 2
    state = following.to_state()
    assert PolicyLearner.from_state(wider, state).to_state() == state
    again = rebuild(wider, 2, learner.sources, log, following.sources, state)
    assert again.to_state() == state
    assert rebuild(wider, 2, learner.sources, log, following.sources).to_state() != state
    narrower = replace(spec, arms=ArmSpace({"k": [8], "m": ["a", "b"]}), baseline="k=8;m=a")
    third = PolicyLearner.from_state(narrower, state)
    assert third.epoch == 3
    for label in narrower.arms.labels:
        np.testing.assert_array_equal(
            third.moments.sums[narrower.arms.index(label)], following.moments.sums[wider.arms.index(label)]
        )
    # Nothing is new, so nothing widens the exploration; and what was taken over is evidence.
    assert third.snapshot(1).exploration_scale == third.scale() < PolicyLearner(narrower).scale()


def test_other_features_or_components_take_nothing_over() -> None:
    learner = PolicyLearner(SPEC)
    learner.learn_many([reward(i) for i in range(50)])
    state = learner.to_state()
    other = replace(SPEC, reward=SPEC.reward.model_copy(update={"metric": "stars"}))
    assert not PolicyLearner.from_state(other, state).moments.sums.any()
    knobs = replace(SPEC, arms=ArmSpace({"model": ["s", "l"]}), baseline="model=l")
    assert not PolicyLearner.from_state(knobs, state).moments.sums.any()


def test_the_trial_of_a_new_level_ends_with_what_is_known_of_it_and_otherwise_with_time() -> None:
    arms = ArmSpace({"k": [2, 8], "m": ["a", "b"]})
    spec = replace(SPEC, arms=arms, baseline="k=2;m=a")
    learner = PolicyLearner(spec)
    learner.learn_many([reward(i, arm=arms.labels[i % 4], quality=0.5) for i in range(400)])
    wider = replace(spec, arms=ArmSpace({"k": [4, 2, 8], "m": ["a", "b"]}))
    began = PolicyLearner.from_state(wider, learner.to_state()).to_state()
    ended = {}
    for what, arm in (("tried", "k=4;m=b"), ("let be", "k=8;m=b")):
        following = PolicyLearner.from_state(wider, began)
        for i in range(400, 400 + FRESH + 1):
            if following.snapshot(1).floor == following.floor():
                break
            following.learn_one(reward(i, arm=arm, quality=0.5, policy_epoch=2))
            if i % 20 == 0:  # who is new survives a restart
                following = PolicyLearner.from_state(wider, following.to_state())
        ended[what] = following.version
    plain = 1.0 / (50.0 + FRESH)
    assert ended["tried"] <= KNOWN
    assert FRESH * (1 - plain / LIFTED) - 2 <= ended["let be"] <= FRESH


# -- drift


def residuals(n: int, shift: float, seed: int) -> list[float]:
    return (0.3 * np.random.default_rng(seed).standard_normal(n) + shift).tolist()


def watch_of(levels: int = 2) -> DriftWatch:
    return DriftWatch([[level] for level in range(levels)], levels, 1)


def run(watch: DriftWatch, values: list[float], arm: int = 0) -> int | None:
    x = [1.0]
    for i, value in enumerate(values):
        expected = watch.expect(x, arm)
        if watch.learn(x, arm, [value - expected[0], -expected[1], -expected[2]]) is not None:
            return i
    return None


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_is_noticed_soon_and_noise_is_not(seed: int) -> None:
    watch = watch_of()
    assert run(watch, residuals(1500, 0.8, seed)) is None
    found = run(watch, residuals(200, 0.5, seed + 100))
    assert found is not None
    assert found <= 3 * THRESHOLD / (1.0 - DELTA)


def test_a_slow_climb_of_the_share_of_one_arm_is_no_drift() -> None:
    """What is expected is expected of an arm: that better arms are taken more often changes no residual."""
    rng, watch = np.random.default_rng(3), watch_of()
    for i in range(3000):
        arm = int(rng.random() < i / 3000)
        assert run(watch, [(0.2, 0.9)[arm] + 0.2 * rng.standard_normal()], arm) is None


def test_an_alarm_leaves_a_floor() -> None:
    levels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    factors = keeping(np.array([1000.0, 600.0, 0.0]), levels, 0)
    np.testing.assert_allclose(factors, [KEPT / 1000, KEPT_OTHERS / 600, 1.0])
    assert WAKE > 0


def test_what_decides_nothing_raises_no_alarm_until_it_has_a_weight_or_a_ceiling() -> None:
    """Latency jumps at 260; the policy weighs quality and cost."""

    def slow(i: int) -> dict[str, Any]:
        made = reward(i, policy_version=max(0, i - 7))
        made["latency_us"] = round(1000 * (1.0 + 0.1 * (i * 7919 % 10)) * (20 if i >= 260 else 1))
        return made

    log = [slow(i) for i in range(600)]
    weighing = with_weights(SPEC, quality=1.0, cost=1.0)
    assert PolicyLearner(weighing).learn_many(log).alarms == []
    for spec in (with_weights(weighing, latency=0.1), with_ceilings(weighing, latency_us_p95=4e6)):
        [(version, alarm), *_] = PolicyLearner(spec).learn_many(log).alarms
        assert 260 < version < 400
        assert alarm.component == 2
    # Set live, it is watched from then on: what came before is no change.
    later = PolicyLearner(weighing)
    later.learn_many(log)
    later.revise(with_ceilings(weighing, latency_us=4e6))
    assert later.learn_many([slow(i) for i in range(600, 900)]).alarms == []
    again = PolicyLearner.from_state(later.spec, later.to_state())
    falls = [slow(i) | {"latency_us": 1} for i in range(900, 1200)]
    [(version, alarm), *_] = later.learn_many(falls).alarms
    assert alarm.component == 2
    again.learn_many(falls)
    assert again.to_state() == later.to_state()


# -- whom it believes


def test_a_source_of_a_crowd_is_bounded_and_a_few_evaluators_are_not() -> None:
    few = SourceShares()
    assert not any(few.doubt(f"judge{i % 3}", float(i % 3)) for i in range(1000))
    crowd = SourceShares()
    believed = {True: 0, False: 0}
    for i in range(4000):
        loud = i % 2 == 0
        believed[loud] += not crowd.doubt("loud" if loud else f"user{i % 199}", 0.2)
    # Whoever is the first to judge a second time waits for the middle of the crowd.
    assert believed[False] >= 1900
    assert believed[True] <= CROWD + SHARE * 2000 / 199
    assert not crowd.doubt("loud", 0.2, trusted=("loud",))
    assert not crowd.doubt(None, 9.0)
    again = SourceShares()
    again.load(json.loads(json.dumps(crowd.dump())))
    assert again.dump() == crowd.dump()
    assert "loud" not in json.dumps(crowd.dump())


def test_a_source_that_is_far_off_all_the_time_is_not_believed_until_it_judges_as_others_do() -> None:
    rng, shares = np.random.default_rng(2), SourceShares()
    believed: dict[str, list[bool]] = {"liar": [], "honest": []}
    for i in range(20_000):
        liar = i % 50 == 0
        # One honest judgement in twenty is as far off as a lie.
        distance = 0.9 if liar and i < 1500 else float(rng.choice([0.05, 0.9], p=[0.95, 0.05]))
        name = "liar" if liar else f"user{i % 49}"
        believed["liar" if liar else "honest"].append(not shares.doubt(name, distance))
    assert sum(believed["liar"][:30]) <= FREE + 1
    assert all(believed["liar"][-5:])
    assert np.mean(believed["honest"]) > 0.97


def test_users_who_judge_at_random_are_believed_and_the_middle_of_the_crowd_is_found_whatever_the_order() -> None:
    rng, shares = np.random.default_rng(5), SourceShares()
    who = rng.integers(0, 200, 4000)
    believed = [not shares.doubt(f"u{i}", 0.1) for i in who]
    assert np.mean(believed) > 0.9
    assert np.mean(believed[2000:]) > 0.97
    again = SourceShares()
    again.load(json.loads(json.dumps(shares.dump())))
    assert [shares.doubt(f"u{i}", 0.1) for i in who] == [again.doubt(f"u{i}", 0.1) for i in who]


def test_a_source_that_leans_is_found_once_and_believed_all_the_same() -> None:
    rng, shares, doubts = np.random.default_rng(7), SourceShares(), 0
    for i in range(6000):
        leans = i % 30 == 0 and i < 3000
        residual = float(0.1 * rng.standard_normal()) + 0.12 * leans
        doubts += bool(shares.doubt(f"u{i % 30}", residual))
    assert doubts < 120
    [found] = shares.leaning
    assert (found.source, found.judgements) == ("u0", pytest.approx(LEAST, abs=20))
    assert 0.08 < found.lean < 0.2
    assert found.crowd == pytest.approx(0.08, abs=0.02)


def test_trimmed_judgements_are_the_furthest_and_their_share_is_as_declared() -> None:
    rng, clip = np.random.default_rng(8), Clip()
    residuals = rng.standard_normal(4000)
    trimmed = np.array([clip.trims(float(one), 0.05) for one in residuals])
    assert trimmed[1000:].mean() == pytest.approx(0.05, abs=0.01)
    assert np.abs(residuals[1000:][trimmed[1000:]]).min() > np.quantile(np.abs(residuals), 0.88)
    again = Clip()
    again.load(json.loads(json.dumps(clip.dump())))
    assert again.dump() == clip.dump()


def test_one_reward_moves_the_sums_by_no_more_than_a_bound() -> None:
    """Whatever a client puts into context, quality, cost and latency of one reward."""
    far, limit = [900.0, -900.0, 900.0, 1.0], LEVERAGE * 4
    learner = PolicyLearner(SPEC)
    learner.learn_many([reward(i) for i in range(200)])
    before = learner.moments.sums.copy()
    report = learner.learn_one(reward(200, features=far, quality=1e5, cost_micro_usd=1 << 60, latency_us=1 << 60))
    assert report.unbelieved == {"too_far": 1}
    moved = np.abs(learner.moments.sums - before)
    assert np.isfinite(moved).all()
    most = learner.spec.reward.clip
    assert moved.max() <= max(limit, math.sqrt(limit) * most, most**2) * (1 + 1e-9)


def test_a_quality_outside_the_declared_range_is_not_believed_and_counted() -> None:
    spec = replace(SPEC, reward=SPEC.reward.model_copy(update={"range": (0.0, 1.0)}))
    learner = PolicyLearner(spec)
    report = learner.learn_many([reward(i, quality=q) for i, q in enumerate((0.0, 1.0, 1.01, -0.5, None))])
    assert (report.applied, report.without_quality, report.unbelieved, report.unheard) == (
        5,
        3,
        {"out_of_range": 2},
        {2, 3},
    )
    shared = learner.learn_one(reward(5, quality=0.5, trace_quality=1.5))
    assert shared.unbelieved == {"out_of_range": 1}
    assert learner.revise(SPEC)
    assert not learner.learn_one(reward(6, quality=1.01)).unbelieved
    again = rebuild(
        spec, 1, {}, [reward(i, quality=q) for i, q in enumerate((0.0, 1.0, 1.01, -0.5, None))]
        + [reward(5, quality=0.5, trace_quality=1.5), reward(6, quality=1.01)], learner.sources, learner.to_state(),
    )  # fmt: skip
    assert again.to_state() == learner.to_state()


def test_a_regressor_of_river_hears_what_is_believed_only() -> None:
    reward_spec = SPEC.reward.model_copy(update={"range": (-9.0, 9.0), "quarantined": ("liar",)})
    spec = replace(SPEC, learner="squarecb:linear_model.LinearRegression", reward=reward_spec)
    learner = SquareCB(spec)
    report = learner.learn_many(
        [reward(0, quality=9.5), reward(1, quality=0.1, source="liar"), reward(2, quality=0.2), reward(3, quality=None)]
    )
    assert (report.applied, report.unbelieved) == (4, {"out_of_range": 1, "quarantined": 1})
    assert [kept.quality for kept in learner.sample] == [0.2]


def test_the_memory_of_sources_is_bounded() -> None:
    shares = SourceShares()
    for i in range(20_000):
        shares.doubt(f"u{i}", 0.1)
    assert len(shares.dump()[2]) <= 1024


def test_a_quality_between_0_and_1_is_left_alone_and_a_wild_one_is_pulled_in() -> None:
    clip = Clip()
    rng = np.random.default_rng(1)
    for _ in range(500):
        residual = float(rng.choice([-0.9, 0.1], p=[0.1, 0.9]))
        assert clip.residual(residual) == residual
    assert clip.residual(1e6) == clip.delta == LEAST_DELTA
    wide = Clip()
    for _ in range(60):
        wide.residual(float(50 * rng.standard_normal()))
    assert 100 < wide.delta < 600
    assert leverage_weight([1.0, 2.0]) == 1.0
    assert leverage_weight([100.0, 0.0]) == pytest.approx(50 / 1e4)
