"""The guard: stages, their evidence, and that the log alone decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.guard_worlds import Traffic, play
from learners.catalog import LEARNERS
from learners.comparison import WARM_UP, Comparison
from learners.guard import Guard
from learners.guard_spec import GuardSpec
from learners.guarded import GuardedLearner
from learners.lineage import Rebuild
from learners.policies_file import parse_policies
from learners.protocol import Learner
from learners.registry import make_learner, restore_learner
from learners.spec import PolicySpec, Weights
from learners.state import Origin
from steersman.errors import ConfigError
from steersman.lanes import in_share
from tests.learners.test_policy_learner import SPEC, reward

FAST = GuardSpec(apprentice=20, shadow=10, cooldown=40)
GUARDED = replace(SPEC, guard=FAST)


def normal(mean: float) -> Callable[[random.Random], float]:
    return lambda rng: rng.gauss(mean, 0.2)


def guard_of(settings: GuardSpec = FAST) -> Guard:
    return Guard(settings, "p", 1.0)


def test_a_better_policy_goes_all_the_way_and_says_why() -> None:
    seen = play(guard_of(), Traffic(normal(0.8), normal(0.6)), 3_000, seed=1)
    steps = [(t.before, t.after, t.share) for t in seen]
    assert steps == [
        ("apprentice", "shadow", 0.0), ("shadow", "canary", 0.1), ("canary", "canary", 0.5), ("canary", "live", 0.9)
    ]  # fmt: skip
    assert [t.version for t in seen[:2]] == [20, 30]
    live = seen[-1]
    assert not live.rollback
    assert live.evidence["lower_bound"] > 0
    assert live.evidence["confidence"] == pytest.approx(0.975)
    assert live.evidence["policy_utility"] == pytest.approx(0.8, abs=0.05)
    assert live.evidence["control_utility"] == pytest.approx(0.6, abs=0.05)
    assert live.evidence["policy_rewards"] > 0 < live.evidence["control_rewards"]
    assert "it earns more than the baseline: at a share of 50%" in live.why
    assert live.ts == live.version * 1_000, "the reward that led to it, not the clock"


def test_a_policy_that_turns_bad_is_rolled_back_and_tried_again_later() -> None:
    traffic = Traffic(lambda rng: rng.gauss(0.8, 0.2), normal(0.6), bad=normal(0.2), bad_from=1_500, good_again=1_900)
    seen = play(guard_of(GuardSpec(start="live", cooldown=600)), traffic, 6_000, seed=3)
    back, again, *rest = seen
    assert (back.before, back.after, back.rollback, back.share) == ("live", "shadow", True, 0.0)
    assert 1_500 < back.version <= 1_800
    assert back.evidence["worse_evidence"] >= 1_000
    assert "it has become worse than the baseline" in back.why
    assert "tried again after 600 rewards" in back.why
    assert (again.after, again.version) == ("canary", back.version + 600)
    assert [t.after for t in rest] == ["canary", "live"]


def test_a_canary_that_is_worse_is_rolled_back_and_waits_twice_as_long_each_time() -> None:
    seen = play(guard_of(GuardSpec(start="canary", cooldown=50)), Traffic(normal(0.1), normal(0.6)), 6_000, seed=2)
    rollbacks = [t for t in seen if t.rollback]
    assert len(rollbacks) >= 3
    waited = [after.version - before.version for before, after in pairwise(seen) if before.rollback]
    assert waited[:3] == [50, 100, 200]
    assert all(t.before == "canary" for t in rollbacks)
    assert not any(t.after == "live" for t in seen)


def test_no_better_is_not_promoted_and_as_good_is_not_rolled_back() -> None:
    rolled_back = 0
    for seed in range(20):
        for start in ("canary", "live"):
            seen = play(guard_of(GuardSpec(start=start)), Traffic(normal(0.6), normal(0.6)), 1_500, seed=seed)
            assert start == "live" or not any(t.after == "live" for t in seen)
            rolled_back += any(t.rollback for t in seen)
    assert rolled_back <= 4, "about 110 comparisons each, one false alarm in 1,000 or fewer allowed"


def test_without_a_control_group_of_its_own_the_routers_holdout_is_the_control() -> None:
    settings = GuardSpec(start="live", control=0.0)
    good, bad = normal(0.8), normal(0.1)
    traffic = Traffic(good, normal(0.6), bad=bad, bad_from=500, holdout=0.1)
    [back] = play(guard_of(settings), traffic, 1_200, seed=5)
    assert back.rollback
    assert play(guard_of(settings), replace(traffic, holdout=0.0), 1_200, seed=5) == [], "nothing to compare with"


def test_attempts_share_the_chance_of_a_false_promotion() -> None:
    guard = guard_of(GuardSpec(start="canary", alpha=0.05))
    spent = 0.0
    for _ in range(200):
        spent += guard.alpha
        guard._rollbacks += 1
    assert 0.049 < spent < 0.05


def test_only_rewards_of_the_present_stage_count() -> None:
    guard = guard_of(GuardSpec(start="canary"))
    row = {"utility": 0.5, "ts": 1, "trace_id": "0" * 32, "mode": "CANARY", "policy_version": 3}
    for change in ({"policy_version": None}, {"mode": "LIVE"}, {"mode": "HOLDOUT"}, {"mode": "SHADOW"}, {"utility": None}, {"utility": float("inf")}):  # fmt: skip
        guard.observe({**row, **change}, 9)
    assert guard.to_json()["comparison"] == Comparison().to_json()
    guard.observe(row, 9)
    assert guard.to_json()["comparison"] != Comparison().to_json()
    later = Guard(FAST, "p", 1.0, since=50)
    for version in range(40, 51):
        later.observe(row, version)
    assert later.to_json()["rewards"] == 0


def test_nothing_is_concluded_before_the_noise_is_known_and_no_outlier_blinds() -> None:
    comparison = Comparison()
    rng = random.Random(4)
    for i in range(WARM_UP):
        comparison.add(rng.gauss(0, 1), i % 2 == 0, span=1.0, tolerance=0.1, alpha=0.05)
    assert comparison.blocks == 0, "30 rewards, 28 differences of neighbours"
    for i in range(200):
        comparison.add(1e6 if i == 50 else rng.gauss(0, 1), i % 2 == 0, span=1.0, tolerance=0.1, alpha=0.05)
    assert comparison.blocks == 99
    assert 0.5 < comparison.deviation < 2.0


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_rewards_free_of_noise_are_compared_as_well(weight: float) -> None:
    """With no weight on quality there is no span to measure them by: then nothing is concluded."""
    for policy, last in ((0.9, "live"), (0.1, "shadow"), (0.5, None)):
        traffic = Traffic(lambda _, worth=policy: worth, lambda _: 0.5)  # type: ignore[misc]
        seen = play(Guard(GuardSpec(start="canary"), "p", weight), traffic, 1_500, seed=1, until=last or "")
        assert (seen[-1].after if seen else None) == (last if weight else None)


# ---- as a learner ----------------------------------------------------------------------------------------------------


def log(n: int, good: str = "model=small;top_k=4") -> Iterator[dict[str, Any]]:
    """Rewards of the policy `SPEC` under a guard, drawn as its router would with what is published."""
    rng = random.Random(11)
    learner = make_learner(GUARDED)
    labels = GUARDED.arms.labels
    for i in range(n):
        stage, share = learner.snapshot(0).stage, learner.snapshot(0).canary_share
        trace = f"{rng.getrandbits(128):032x}"
        ours = stage != "SHADOW" and in_share(trace, GUARDED.name, share)
        mode = {"SHADOW": "SHADOW", "CANARY": "CANARY"}.get(stage, "LIVE" if ours else "HOLDOUT")
        arm = labels[0] if ours else GUARDED.baseline
        utility = rng.gauss(0.9 if ours else 0.4, 0.1)
        made = reward(
            i, arm=arm, mode=mode, trace_id=trace, policy_version=learner.version, utility=utility, quality=utility,
            ts=1_000 + i,
        )  # fmt: skip
        learner.learn_many([made])
        yield made


LOG = list(log(420))


def test_the_snapshot_carries_the_stage() -> None:
    learner = make_learner(GUARDED)
    stages = [(learner.snapshot(0).stage, learner.snapshot(0).canary_share)]
    for one in LOG:
        learner.learn_many([one])
        now = learner.snapshot(0).stage, learner.snapshot(0).canary_share
        if now != stages[-1]:
            stages.append(now)
    assert stages == [("SHADOW", 1.0), ("CANARY", 0.1), ("CANARY", 0.5), ("LIVE", 0.9)]
    frozen = restore_learner(replace(GUARDED, guard=FAST.model_copy(update={"freeze": True})), learner.to_state())
    assert (frozen.snapshot(0).stage, frozen.snapshot(0).canary_share) == ("FROZEN", 0.9)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LOG)), max_size=8), stop=st.integers(0, len(LOG)))
def test_state_and_transitions_do_not_depend_on_how_the_log_is_cut(cuts: list[int], stop: int) -> None:
    whole = make_learner(GUARDED)
    whole.learn_many(LOG)
    one = make_learner(GUARDED)
    taken = []
    for start, end in pairwise([0, *sorted({*cuts, stop}), len(LOG)]):
        one.learn_many([*LOG[max(0, start - 5) : start], *LOG[start:end]])  # repeats, as after a crash
        assert isinstance(one, GuardedLearner)
        taken += one.take_transitions()
        if end == stop:
            one = restore_learner(GUARDED, one.to_state())
    assert one.to_state() == whole.to_state()
    assert one.snapshot(5).to_record() == whole.snapshot(5).to_record()
    assert isinstance(whole, GuardedLearner)
    assert taken == whole.take_transitions()


def since(learner: Learner) -> int:
    """Version from which on the guard of a learner watches."""
    assert isinstance(learner, GuardedLearner)
    assert learner.guard is not None
    return learner.guard.since


def again(spec: PolicySpec, state: bytes, revision: int | None = None) -> Learner:
    """The learner of a state, from the log."""
    origin = Origin.of(state)
    made = Rebuild(spec, origin.epoch, origin.began, origin.sources, state, revision)
    made.feed(LOG)
    return made.learner


def test_a_guard_that_is_set_up_later_begins_there_and_is_rebuilt_from_the_log() -> None:
    plain = make_learner(SPEC)
    plain.learn_many(LOG[:100])
    guarded = restore_learner(GUARDED, plain.to_state())
    assert (guarded.epoch, guarded.version, guarded.snapshot(0).stage) == (1, 100, "SHADOW")
    guarded.learn_many(LOG[100:300])
    state = guarded.to_state()
    assert since(guarded) == since(restore_learner(GUARDED, state)) == 100
    assert again(GUARDED, state).to_state() == state
    assert again(GUARDED, plain.to_state()).to_state() == plain.to_state(), "no worker has seen the guard yet"
    changed = restore_learner(replace(GUARDED, guard=FAST.model_copy(update={"alpha": 0.01})), state)
    assert since(changed) == 300, "with other settings it begins anew"
    unguarded = restore_learner(SPEC, state)
    assert unguarded.version == 300
    assert unguarded.snapshot(0).stage == "LIVE"


OTHERS: list[PolicySpec] = [
    replace(GUARDED, reward=SPEC.reward.model_copy(update={"weights": Weights(quality=2.0)})),
    replace(GUARDED, baseline=GUARDED.arms.labels[0]),
    replace(GUARDED, guard=FAST.model_copy(update={"alpha": 0.01})),
    replace(GUARDED, guard=FAST.model_copy(update={"freeze": True})),
    replace(GUARDED, switch_cost=0.1),
]


@pytest.mark.parametrize("other", OTHERS, ids=["weights", "baseline", "guard", "freeze", "sessions"])
@pytest.mark.parametrize("at", [0, 40, 200, 420])
def test_settings_that_change_while_it_runs_are_rebuilt_from_the_log(other: PolicySpec, at: int) -> None:
    learner = make_learner(GUARDED)
    learner.learn_many(LOG[:at])
    stage, before = learner.snapshot(0).stage, learner.snapshot(7)
    learner = restore_learner(other, learner.to_state())
    same = other.guard is not None and other.guard.digest == FAST.digest
    expected = "FROZEN" if other.guard is not None and other.guard.freeze else stage if same else "SHADOW"
    assert (learner.snapshot(0).stage, learner.snapshot(0).switch_cost) == (expected, other.switch_cost)
    changed = learner.snapshot(7)
    assert (before.revision, changed.revision) == (0, 1)
    learner.learn_many(LOG[at:])
    state = learner.to_state()
    assert again(other, state).to_state() == state
    assert again(other, state).snapshot(9).to_record() == learner.snapshot(9).to_record()
    middle = make_learner(GUARDED)
    middle.learn_many(LOG[:at])
    here = restore_learner(other, middle.to_state()).to_state()
    for revision, snapshot in enumerate((before, changed)):
        assert again(other, here, revision).snapshot(7).to_record() == snapshot.to_record()


def test_other_weights_begin_the_comparison_anew_in_the_same_stage() -> None:
    learner = make_learner(GUARDED)
    learner.learn_many(LOG[:100])
    assert isinstance(learner, GuardedLearner)
    assert learner.guard is not None
    alpha, compared = learner.guard.alpha, learner.guard.to_json()["comparison"]["policy"]["n"]
    assert learner.guard.stage == "canary"
    assert compared > 0
    assert learner.revise(OTHERS[0])
    assert (learner.guard.stage, learner.guard.quality_weight) == ("canary", 2.0)
    assert learner.guard.to_json()["comparison"]["policy"]["n"] == 0
    assert learner.guard.alpha < alpha, "an attempt of its own"
    assert not learner.revise(OTHERS[0])
    assert learner.revise(SPEC)
    assert learner.snapshot(0).stage == "LIVE"


def test_a_new_epoch_begins_with_a_new_guard() -> None:
    learner = make_learner(GUARDED)
    learner.learn_many(LOG)
    other: PolicySpec = replace(GUARDED, reward=SPEC.reward.model_copy(update={"metric": "stars"}))
    again = restore_learner(other, learner.to_state())
    assert (again.epoch, again.version, again.snapshot(0).stage) == (2, 0, "SHADOW")


@pytest.mark.parametrize("name", [*LEARNERS, "squarecb:linear_model.LinearRegression"])
def test_every_learner_may_have_a_guard(name: str) -> None:
    spec = replace(GUARDED, learner=name, switch_cost=0.05)
    log = [{**one, "reward_spec": spec.reward_hash} for one in LOG[:80]]
    learner = make_learner(spec)
    learner.learn_many(log[:35])
    learner = restore_learner(spec, learner.to_state())
    learner.learn_many(log[35:])
    state, snapshot = learner.to_state(), learner.snapshot(3)
    assert (snapshot.stage, snapshot.canary_share, snapshot.switch_cost) == ("CANARY", 0.1, 0.05)
    origin = Origin.of(state)
    made = Rebuild(spec, origin.epoch, origin.began, origin.sources, state)
    made.feed(log)
    assert made.learner.to_state() == restore_learner(spec, state).to_state() == state
    assert made.learner.snapshot(3).to_record() == snapshot.to_record()


TOML = """
[[policy]]
name = "p"
baseline = { k = 1 }
[policy.knobs]
k = [1, 2]
"""


def test_settings_are_read_and_wrong_ones_named() -> None:
    spec = parse_policies(TOML).get("default", "p")
    assert spec is not None
    assert (spec.guard, spec.switch_cost) == (None, None)
    spec = parse_policies(f"{TOML}[policy.guard]\nshares = [0.2]\n[policy.sessions]\nswitch_cost = 0.1\n").get(
        "default", "p"
    )
    assert spec is not None
    assert (spec.guard, spec.switch_cost) == (GuardSpec(shares=(0.2,)), 0.1)
    assert spec.lineage == parse_policies(TOML).get("default", "p").lineage, "nothing is forgotten"  # type: ignore[union-attr]
    for text, message in (
        ("[policy.guard]\nshares = [0.5, 0.1]", "each share must be larger"),
        ("[policy.guard]\nshares = []", "shares"),
        ("[policy.guard]\nstart = 'now'", "guard.start"),
        ("[policy.guard]\nalpha = 0.0", "guard.alpha"),
        ("[policy.guard]\n[policy.learning]\nshards = 2", "a policy in shards has no guard"),
        ("[policy.sessions]\nswitch_cost = -1.0", "switch_cost"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_policies(f"{TOML}{text}\n")
