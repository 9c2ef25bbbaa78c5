"""Ceilings on tool calls and of single tenants: exact, replayable, stated in the snapshot, and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.batch_scorer import BatchScorer
from learners.control import Control
from learners.lineage import rebuild, vector_of
from learners.policy_learner import PolicyLearner
from learners.revision import settings_of, with_settings
from learners.spec import Ceilings, Exploration, Learning, PolicySpec, RewardSpec, Weights
from learners.state import Origin
from learners.tool_calls import ToolHead
from steersman.arms import ArmSpace
from steersman.codec import Codec
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.scoring import draw
from steersman.snapshot import TOOL_WEIGHTS, PolicySnapshot

TENANTS = ("acme", "globex")
FEATURES = FeatureSpec(features=(Numeric(name="n"), Categorical(name="tenant", values=TENANTS)))
CODEC = Codec("policy_snapshot")


def spec_with(ceilings: dict[str, float], tenants: dict[str, dict[str, float]]) -> PolicySpec:
    return PolicySpec(
        "default",
        "a/b",
        ArmSpace({"tools": [0, 2, 4, 8], "model": ["s", "l"]}),
        "tools=4;model=l",
        FEATURES,
        RewardSpec(
            weights=Weights(),
            ceilings=Ceilings(**ceilings),
            tenant_ceilings={name: Ceilings(**one) for name, one in tenants.items()},
        ),
        Exploration(floor=0.01),
        learning=Learning(half_life=400.0),
    )


FULL = spec_with(
    {"cost_micro_usd": 3000.0, "tool_calls": 3.5}, {"acme": {"tool_calls": 2.0}, "globex": {"cost_micro_usd": 2000.0}}
)


def context(i: int) -> tuple[list[float], int]:
    """Context of the i-th request, and whose it is: 0 acme, 1 globex, 2 somebody else."""
    rng = np.random.default_rng((i, 3))
    who = int(rng.choice(3, p=[0.4, 0.3, 0.3]))
    return [float(np.float32(rng.normal())), float(who == 0), float(who == 1), 1.0], who


def reward(i: int, arm: int, version: int = -1, **changes: Any) -> dict[str, Any]:
    """More tools and the larger model are better, and use more."""
    rng = np.random.default_rng((i, 4))
    x, _ = context(i)
    chosen = FULL.arms.arms[arm]
    tools, large = int(chosen["tools"]), chosen["model"] == "l"
    return {
        "decision_id": f"d{i}", "tenant": "default", "policy": "a/b", "policy_epoch": 1,
        "policy_version": version if version >= 0 else None, "arm": FULL.arms.labels[arm], "mode": "LIVE", "features": x,
        "quality": 0.1 * tools**0.5 + 0.2 * large + 0.05 * float(rng.normal()),
        "cost_micro_usd": int((500 * tools + 2500 * large + 200) * np.exp(0.1 * rng.normal())), "latency_us": 10_000, "failures": 0,
        "tool_calls": int(rng.binomial(tools, 0.9)), "reward_spec": FULL.reward_hash, "source_partition": 0,
        "source_offset": i, "seq": 0, **changes,
    }  # fmt: skip


def some(n: int) -> list[dict[str, Any]]:
    return [reward(i, int(np.random.default_rng((i, 5)).integers(len(FULL.arms))), max(0, i - 7)) for i in range(n)]


def record(learner: PolicyLearner) -> dict[str, Any]:
    return CODEC.decode(CODEC.encode(learner.snapshot(5).to_record()))


@settings(max_examples=10, derandomize=True, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=6), restart=st.integers(0, 300))
def test_the_same_bytes_however_the_log_is_cut(cuts: list[int], restart: int) -> None:
    log = some(300)
    log[40]["mode"], log[60]["mode"] = "HOLDOUT", "SHADOW"
    one, many = PolicyLearner(FULL), PolicyLearner(FULL)
    one.learn_many(log)
    for start, end in pairwise([0, *sorted({*cuts, restart}), 300]):
        if start == restart:
            many = PolicyLearner.from_state(FULL, many.to_state())
        many.learn_many(log[start:end])
    assert one.to_state() == many.to_state()
    assert record(one) == record(many)
    assert {(m["tenant"], m["component"]) for m in record(one)["tenant_multipliers"]} == {
        ("", "tool_calls"), ("acme", "tool_calls"), ("globex", "cost"),
    }  # fmt: skip
    assert [m["component"] for m in record(one)["multipliers"]] == ["cost"]


def test_ceilings_of_tenants_come_go_and_move_live_and_a_replay_agrees() -> None:
    plain = spec_with({}, {})
    moved = spec_with({"tool_calls": 3.0}, {"acme": {"tool_calls": 1.0, "latency_us_p95": 5e6}})
    log = some(300)
    learner = PolicyLearner(plain)
    published = []
    for start, spec in ((0, plain), (60, FULL), (120, moved), (180, plain), (240, FULL)):
        assert learner.revise(spec) == (start > 0)
        published.append(record(learner))
        learner.learn_many(log[start : start + 60])
    published.append(record(learner))
    assert [bool(one["tenant_multipliers"]) for one in published] == [False, False, True, False, True, True]
    assert [one["tenant_feature"] for one in published] == ["", "tenant", "tenant", "", "tenant", "tenant"]
    state = learner.to_state()
    assert PolicyLearner.from_state(FULL, state).to_state() == state
    assert rebuild(plain, 1, {}, log, Origin.of(state).sources, state).to_state() == state
    for found in published:
        again = rebuild(plain, 1, {}, log, vector_of(found), state, found["revision"])
        assert record(again) == found


def test_settings_without_them_are_what_they_were() -> None:
    assert not {"tenant_ceilings", "tenant_feature"} & set(settings_of(spec_with({"failures": 1.0}, {})))
    again = with_settings(spec_with({}, {}), json.loads(json.dumps(settings_of(FULL))))
    assert settings_of(again) == settings_of(FULL)
    assert again.lineage == FULL.lineage == spec_with({}, {}).lineage
    plain = PolicyLearner(spec_with({}, {}))
    plain.learn_many(some(50))
    assert Control(plain.spec, plain.layout).dump()[0]["pacing"] == []
    assert TOOL_WEIGHTS not in plain.snapshot(0).tensors


def play(
    spec: PolicySpec, n: int, every: int = 5
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Whose n decisions were, their tool calls and their costs, under a policy that learns from them."""
    rng = np.random.default_rng(11)
    learner, scorer, late = PolicyLearner(spec), BatchScorer(PolicyLearner(spec).snapshot(0)), []
    rows = []
    for i in range(n):
        if i % every == 0:
            learner.learn_many(late)
            late, version = [], learner.version
            scorer = BatchScorer(PolicySnapshot.from_record(record(learner)))
            version = learner.version
        x, who = context(i)
        scores = scorer.score(np.array(x, dtype=np.float32))
        assert scores.propensity.sum() == pytest.approx(1.0)
        made = reward(i, draw(scores.propensity, rng.random()), version, reward_spec=spec.reward_hash)
        rows.append((who, made["tool_calls"], made["cost_micro_usd"]))
        late.append(made)
    who, calls, cost = np.array(rows, dtype=np.float64).T
    return who, calls, cost


def test_each_keeps_its_own_ceiling_and_nobody_elses() -> None:
    tight = spec_with({"cost_micro_usd": 4500.0}, {"acme": {"tool_calls": 2.0}, "globex": {"cost_micro_usd": 2000.0}})
    who, calls, cost = (column[400:] for column in play(tight, 1200))
    assert calls[who == 0].mean() == pytest.approx(2.0, rel=0.06)
    assert cost[who == 1].mean() == pytest.approx(2000.0, rel=0.08)
    assert cost.mean() < 4500.0 * 1.03
    assert calls[who == 2].mean() > 5.0, "who has no ceiling of its own is not held back by others'"
    free, *_ = play(spec_with({}, {}), 5)
    assert len(free) == 5


def test_a_ceiling_on_tool_calls_of_the_whole_policy() -> None:
    _, calls, _ = play(spec_with({"tool_calls": 3.0}, {}), 1000)
    assert calls[300:].mean() == pytest.approx(3.0, rel=0.04)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    n=st.floats(-3, 3), who=st.integers(0, 2), price=st.floats(0, 5), calls=st.floats(0, 5), masked=st.integers(0, 6),
)  # fmt: skip
def test_the_price_of_a_tenant_is_charged_to_its_requests_alone(
    n: float, who: int, price: float, calls: float, masked: int
) -> None:
    learner = PolicyLearner(FULL)
    learner.learn_many(some(80))
    base = replace(learner.snapshot(0), multipliers=())
    from_record = {"tenant": "acme", "component": "tool_calls", "value": calls}
    wire = base.to_record()
    wire["tenant_multipliers"] = [from_record, {"tenant": "globex", "component": "cost", "value": price}]
    dear = BatchScorer(PolicySnapshot.from_record(CODEC.decode(CODEC.encode(wire))))
    free = BatchScorer(base)
    x = np.array([n, who == 0, who == 1, 1.0], dtype=np.float32)
    eligible = np.arange(len(FULL.arms)) >= masked
    expected = free.score(x).utility
    if who == 0:
        expected = expected - calls * free.tool_calls(x[None])[0]
    elif who == 1:
        expected = expected - price * free.components(x).cost / 10_000.0
    made = dear.score(x, eligible)
    np.testing.assert_allclose(made.utility, expected, atol=1e-9)
    np.testing.assert_allclose(dear.utilities(x[None])[0], expected, atol=1e-9)
    assert made.propensity[eligible].sum() == pytest.approx(1.0)
    assert (made.propensity[eligible] > 0).all()
    assert dear.snapshot.tenant_of(x.tolist()) == ("acme", "globex", "")[who]
    if who == 2:
        assert made.utility.tolist() == free.score(x, eligible).utility.tolist()


def test_the_head_of_tool_calls_finds_what_arms_call() -> None:
    layout = make_layout(FULL.arms, FEATURES)
    head = ToolHead(layout, FEATURES)
    rng = np.random.default_rng(1)
    for i in range(600):
        arm, (x, who) = int(rng.integers(len(FULL.arms))), context(i)
        head.add(x, arm, float(FULL.arms.arms[arm]["tools"]) * (2.0 if who == 1 else 1.0), 1.0)
    for who, factor in ((1, 2.0), (2, 1.0)):
        x64 = np.array([0.0, 0.0, float(who == 1), 1.0])
        found = [layout.phi(x64, a) @ head.theta() for a in range(len(FULL.arms))]
        np.testing.assert_allclose(found, [factor * float(arm["tools"]) for arm in FULL.arms.arms], atol=0.3)
    again = ToolHead(layout, FEATURES)
    again.load(*head.dump())
    assert again.theta().tolist() == head.theta().tolist()
    head.shorten(np.full(len(FULL.arms), 0.5))
    np.testing.assert_allclose(head.counts, again.counts / 2)
