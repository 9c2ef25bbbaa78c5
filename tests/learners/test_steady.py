"""Steady ceilings: decisions stay near them one by one, and whoever knows only of prices is not let loose."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from learners.batch_scorer import BatchScorer
from learners.lineage import rebuild, vector_of
from learners.pacing import SHUN, SHUNNED, SLACK, SURER, WINDOW, Limit, Pacer
from learners.policy_learner import PolicyLearner
from learners.revision import settings_of, with_settings
from learners.spec import Ceilings, PolicySpec, RewardSpec, Weights
from learners.state import Origin, unpack
from steersman.arms import ArmSpace
from steersman.codec import Codec
from steersman.features import FeatureSpec, Numeric
from steersman.scoring import draw
from steersman.snapshot import PolicySnapshot
from steersman.squares import SQUARES
from tests.learners.test_tenant_pacing import FEATURES, context, some, spec_with

CODEC = Codec("policy_snapshot")
LIMIT = Limit("cost_micro_usd", "cost", 3000.0, 0.0, steady=True)


def steady(ceilings: dict[str, float], tenants: dict[str, dict[str, float]] | None = None) -> PolicySpec:
    spec = spec_with(ceilings, tenants or {})
    reward = spec.reward.model_copy(
        update={
            "ceilings": Ceilings(**ceilings, steady=bool(ceilings)),
            "tenant_ceilings": {who: Ceilings(**one, steady=True) for who, one in (tenants or {}).items()},
        }
    )
    return replace(spec, reward=reward)


FULL = steady({"cost_micro_usd": 3300.0, "tool_calls": 3.5}, {"acme": {"tool_calls": 1.5}})


def record(learner: PolicyLearner) -> dict[str, Any]:
    return CODEC.decode(CODEC.encode(learner.snapshot(5).to_record()))


def learned(spec: PolicySpec, n: int = 300) -> PolicyLearner:
    learner = PolicyLearner(spec)
    learner.learn_many(some(n))
    return learner


def mean_use(snapshot: PolicySnapshot, x: np.ndarray[Any, Any]) -> float:
    """What decisions use of LIMIT in the mean, by the propensities that a router states."""
    scorer = BatchScorer(snapshot)
    propensity = np.array([scorer.score(row.astype(np.float32)).propensity for row in x])
    return float((propensity * scorer.predictions(x)[1]).sum(axis=1).mean()) / LIMIT.ceiling


FEW = PolicySpec(
    "default",
    "a/few",
    ArmSpace({"model": ["s", "m", "l"]}),
    "model=m",
    FeatureSpec(features=(Numeric(name="n"),)),
    RewardSpec(weights=Weights(), ceilings=Ceilings(cost_micro_usd=LIMIT.ceiling)),
)


def play(spec: PolicySpec, n: int, seed: int) -> np.ndarray[Any, Any]:
    """What each of n decisions cost under a policy that learns from them, every 10, in ceilings of LIMIT; between the arms that use a tenth and four of them
    lies one that uses as much as it may, and is a little worse than a mix of these."""
    rng = np.random.default_rng(seed)
    learner, late, used = PolicyLearner(spec), list[dict[str, Any]](), []
    scorer, version = BatchScorer(learner.snapshot(0)), 0
    for i in range(n):
        if i % 10 == 0 and i:
            learner.learn_many(late)
            late, version = [], learner.version
            scorer = BatchScorer(learner.snapshot(0))
        x = np.array([rng.normal(), 1.0], dtype=np.float32)
        arm = draw(scorer.score(x).propensity, rng.random())
        used.append((0.1, 1.0, 4.0)[arm] * float(np.exp(0.1 * rng.normal() - 0.005)))
        made = {
            "decision_id": f"d{i}", "tenant": "default", "policy": "a/few", "policy_epoch": 1, "policy_version": version,
            "arm": spec.arms.labels[arm], "mode": "LIVE", "features": x.tolist(), "reward_spec": spec.reward_hash,
            "quality": (0.2, 0.34, 0.95)[arm] + 0.05 * float(rng.normal()), "cost_micro_usd": used[-1] * LIMIT.ceiling,
            "latency_us": 0.0, "failures": 0, "tool_calls": 0, "source_partition": -1, "source_offset": -1, "seq": 0,
        }  # fmt: skip
        late.append(made)
    return np.array(used)


def test_windows_are_near_a_steady_ceiling_on_either_side() -> None:
    found = {}
    for on in (False, True):
        ceilings = Ceilings(cost_micro_usd=LIMIT.ceiling, steady=on)
        used = play(replace(FEW, reward=FEW.reward.model_copy(update={"ceilings": ceilings})), 1800, 11)[500:]
        sums = np.concatenate([[0.0], np.cumsum(used)])
        found[on] = np.abs((sums[1000:] - sums[:-1000]) / 1000 - 1.0).max(), used.std()
    assert found[True][0] < 0.01 < found[False][0]
    assert found[True][1] < 0.5 * found[False][1], "decisions are near it one by one"


@pytest.mark.parametrize("account", [-60.0, -4.0, 0.0, 4.0])
def test_what_is_charged_makes_decisions_use_what_the_account_leaves(account: float) -> None:
    learner = learned(steady({"cost_micro_usd": 3000.0}), 600)
    pacer = learner.control._pacer._policy
    pacer._account = {LIMIT.name: account}
    target, made = pacer.target(LIMIT), learner.snapshot(0)
    (near,) = made.squares
    assert (near.tenant, near.component) == ("", "cost")
    bare = replace(made, multipliers=(), tensors={k: v for k, v in made.tensors.items() if k != SQUARES})
    most = mean_use(bare, pacer.contexts)
    assert (target > most) == (account < -5.0)
    assert mean_use(made, pacer.contexts) == pytest.approx(min(target, most), rel=0.01)
    # Who knows of prices alone spends no more, though what it spends scatters.
    older = replace(made, tensors=bare.tensors)
    assert mean_use(older, pacer.contexts) <= target * 1.01
    if account > 0:
        assert mean_use(older, pacer.contexts) == pytest.approx(target, rel=0.02)


def test_nothing_is_charged_where_the_policy_uses_less_by_itself() -> None:
    learner = learned(steady({"cost_micro_usd": 30_000.0}), 600)
    made = learner.snapshot(0)
    assert made.tensors[SQUARES].shape == (1, 5, 2)
    assert made.squares == []
    assert [m.value for m in made.multipliers] == [0.0]
    free = learned(spec_with({}, {}), 600).snapshot(0)
    x = np.array(context(3)[0], dtype=np.float32)
    assert BatchScorer(made).score(x).propensity.tolist() == BatchScorer(free).score(x).propensity.tolist()


def test_arms_that_are_equal_are_charged_no_square() -> None:
    learner = PolicyLearner(steady({"cost_micro_usd": 100.0}))
    learner.learn_many([{**one, "quality": 1e-12 * one["quality"]} for one in some(40)])
    assert learner.snapshot(0).squares == []


def test_the_square_follows_the_scatter_that_windows_allow() -> None:
    for scatter, up in ((0.01, False), (2.0, True)):
        one = Pacer([LIMIT], 2, 1)
        assert one.shun(LIMIT) == SHUN
        for i in range(3000):
            one.add([1.0], 0, {"cost": LIMIT.ceiling * (1.0 + scatter * (-1) ** i)}, 10.0)
        assert one.aim(LIMIT) == 1.0, "an aim has no reserve"
        assert one.shun(LIMIT) == (SHUNNED[1] if up else SHUNNED[0])
    one._spread[LIMIT.name] = 0.0
    one._spread[LIMIT.name] = (SLACK * WINDOW / SURER) ** 2 / (2.0 * one._lag + one._horizon(LIMIT))
    assert one._shyer(LIMIT) == pytest.approx(one.shun(LIMIT))


@settings(max_examples=10, derandomize=True, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=5), restart=st.integers(0, 200))
def test_the_same_bytes_however_the_log_is_cut(cuts: list[int], restart: int) -> None:
    log = some(200)
    one, many = PolicyLearner(FULL), PolicyLearner(FULL)
    one.learn_many(log)
    for start, end in pairwise([0, *sorted({*cuts, restart}), 200]):
        if start == restart:
            many = PolicyLearner.from_state(FULL, many.to_state())
        many.learn_many(log[start:end])
    assert one.to_state() == many.to_state()
    assert record(one) == record(many)
    assert {(near.tenant, near.component) for near in one.snapshot(0).squares} >= {("", "cost"), ("acme", "tool_calls")}


def test_it_is_turned_on_and_off_live_and_a_replay_agrees() -> None:
    plain = spec_with({"cost_micro_usd": 3000.0, "tool_calls": 3.5}, {"acme": {"tool_calls": 2.0}})
    log, learner, published = some(240), PolicyLearner(plain), []
    for start, spec in ((0, plain), (60, FULL), (120, plain), (180, FULL)):
        assert learner.revise(spec) == (start > 0)
        published.append(record(learner))
        learner.learn_many(log[start : start + 60])
    published.append(record(learner))
    steadied = [SQUARES in {tensor["name"] for tensor in one["tensors"]} for one in published]
    assert steadied == [False, True, False, True, True]
    state = learner.to_state()
    assert PolicyLearner.from_state(FULL, state).to_state() == state
    assert rebuild(plain, 1, {}, log, Origin.of(state).sources, state).to_state() == state
    for found in published:
        assert record(rebuild(plain, 1, {}, log, vector_of(found), state, found["revision"])) == found
    accounts = learner.control._pacer.accounts()
    assert learner.revise(plain)
    assert learner.control._pacer.accounts() != accounts, "an aim's account is no upper limit's"


def test_settings_and_states_without_it_are_what_they_were() -> None:
    plain = spec_with({"cost_micro_usd": 3000.0}, {})
    off = replace(
        plain, reward=plain.reward.model_copy(update={"ceilings": Ceilings(cost_micro_usd=3000, steady=False)})
    )
    assert settings_of(off) == settings_of(plain)
    assert settings_of(plain)["ceilings"] == {"cost_micro_usd": 3000.0}
    again = with_settings(plain, json.loads(json.dumps(settings_of(FULL))))
    assert settings_of(again) == settings_of(FULL)
    assert again.reward.ceilings.steady is True
    assert FULL.lineage == plain.lineage
    for spec, length in ((plain, 2), (steady({"cost_micro_usd": 3000.0}), 3)):
        assert len(unpack(learned(spec, 50).to_state())[1]["control"]["plans"][""]) == length


def test_a_ceiling_on_a_mean_is_needed() -> None:
    with pytest.raises(ValidationError, match="steady needs a ceiling on a mean"):
        Ceilings(latency_us_p95=4e6, steady=True)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(n=st.floats(-3, 3), who=st.integers(0, 2), weight=st.floats(0, 3), centre=st.floats(-5, 5))
def test_the_square_of_use_is_charged_to_whom_it_is_on(n: float, who: int, weight: float, centre: float) -> None:
    base = learned(FULL, 80).snapshot(0)
    tensor = np.zeros((3, 5, 2), dtype=np.float32)
    tensor[0, 1] = weight / 1e7, 1000.0 * centre
    tensor[1, 4] = 2.0, 1.5
    tensor[2, 2] = weight / 1e9, 9000.0
    wire = replace(base, multipliers=(), tensors={**base.tensors, SQUARES: tensor}).to_record()
    dear = BatchScorer(PolicySnapshot.from_record(CODEC.decode(CODEC.encode(wire))))
    without = {name: one for name, one in base.tensors.items() if name != SQUARES}
    free = BatchScorer(replace(base, multipliers=(), tensors=without))
    x = np.array([n, who == 0, who == 1, 1.0], dtype=np.float32)
    found = free.components(x)
    (of_all, lot), *_ = tensor[0, 1:2].astype(float)
    expected = free.score(x).utility - of_all * (found.cost - lot) ** 2
    if who == 0:
        expected = expected - 2.0 * (free.tool_calls(x[None])[0] - 1.5) ** 2
    elif who == 1:
        expected = expected - float(tensor[2, 2, 0]) * (found.latency - 9000.0) ** 2
    made = dear.score(x)
    np.testing.assert_allclose(made.utility, expected, atol=1e-9)
    np.testing.assert_allclose(dear.utilities(x[None])[0], expected, atol=1e-9)
    assert made.propensity.sum() == pytest.approx(1.0)
    assert dear.snapshot.tenants == FEATURES.features[1].values  # type: ignore[union-attr]
