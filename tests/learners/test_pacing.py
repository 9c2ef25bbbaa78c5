"""Accounts, plans and targets of ceilings; that they are kept is in test_tenant_pacing.py and tests/benchmarks."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from learners import pacing
from learners.batch_scorer import BatchScorer
from learners.dual import Demand
from learners.pacing import CREDIT, DEBT, FURTHEST, HASTE, HORIZON, LATE, LEAST, MOST, NEWEST, SLOWLY, Limit, Pacer
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec
from learners.state import pack, unpack
from tests.learners.test_control import FULL, drifting, with_ceilings
from tests.learners.test_policy_learner import SPEC
from tests.learners.test_tenant_pacing import FULL as TENANTS
from tests.learners.test_tenant_pacing import some

LIMIT = Limit("cost_micro_usd", "cost", 100.0, 0.0)


def pacer() -> Pacer:
    return Pacer([LIMIT], 2, 1)


def told(one: Pacer, used: float, lag: float = 0.0, own: bool = True) -> None:
    one.add([1.0], 0, {"cost": 100.0 * used}, lag, own)


def looped(
    delay: int, seed: int, reckons: bool, lost: float = 0.0, noise: float = 0.3
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Uses of decisions that each use what the pacer wants, with noise, when rewards come late, or never."""
    rng = np.random.default_rng(seed)
    one, late, uses, seen = pacer(), deque([(3.0, 0)] * delay), [], 0
    for _ in range(4000):
        used, version = late.popleft()
        if rng.random() >= lost:
            told(one, used, seen - version)
            seen += 1
        if not reckons:
            one._planned = dict.fromkeys(one._planned, 0.0)
        used = one.target(LIMIT) * float(np.exp(noise * rng.standard_normal() - noise**2 / 2.0))
        uses.append(used)
        late.append((used, seen))
    return np.array(uses)


def windows(uses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How far the mean of each 1,000 decisions after the first 1,000 is from the ceiling."""
    sums = np.concatenate([[0.0], np.cumsum(uses[1000:])])
    return np.asarray((sums[1000:] - sums[:-1000]) / 1000 - 1.0)


def deviation(uses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.abs(windows(uses)).max())


@pytest.mark.parametrize("delay", [1, 10, 100])
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_what_decisions_use_comes_to_the_ceiling_however_late_rewards_are(delay: int, lost: float) -> None:
    worst = max(deviation(looped(delay, seed, True, lost)) for seed in range(3))
    assert worst < (0.01 if delay <= 10 and not lost else 0.04), worst


def test_who_does_not_reckon_with_what_is_on_its_way_swings() -> None:
    reckons, not_ = (max(deviation(looped(100, seed, which)) for seed in range(3)) for which in (True, False))
    assert reckons < 0.5 * not_, (reckons, not_)


def test_a_plan_counts_until_its_reward_could_have_come() -> None:
    one = pacer()
    for _ in range(200):
        told(one, 1.0, 20.0)
    told(one, 11.0, 20.0)
    at_once = one.target(LIMIT)
    due = one.accounts()["cost_micro_usd"] + one.more()[0]["cost_micro_usd"]
    assert at_once == pytest.approx(one.aim(LIMIT) - due / (HORIZON + LATE * one.dump()[0][0]))
    assert 0.45 < at_once < 0.51
    for _ in range(20):
        told(one, 1.0, 20.0)
    assert at_once < one.target(LIMIT) < 1.0, "part of it is meant to be paid back by what has been decided since"
    assert 10.0 < one.accounts()["cost_micro_usd"] < 11.0, "the ten, and the reserve that they have taught"
    before = one.more()[0]["cost_micro_usd"]
    assert -10.0 < before < -2.0
    for _ in range(200):
        told(one, 1.0, 20.0, own=False)
    assert one.more()[0]["cost_micro_usd"] == pytest.approx(0.0, abs=0.01), "others' decisions are planned by nobody"


@pytest.mark.parametrize(("delay", "noise", "reserve"), [(1, 0.3, 0.0), (10, 1.2, 0.03), (100, 0.9, 0.04)])
def test_a_window_is_hardly_ever_above_the_ceiling_and_the_mean_no_further_below_than_noise_asks_for(
    delay: int, noise: float, reserve: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = np.concatenate([windows(looped(delay, seed, True, noise=noise)) for seed in range(6)])
    assert (found <= 0.01).mean() >= 0.97
    assert -1.5 * reserve - 0.002 <= found.mean() <= 0.001 - reserve / 3.0
    if reserve:
        monkeypatch.setattr(pacing, "SURE", 0.0)
        bare = np.concatenate([windows(looped(delay, seed, True, noise=noise)) for seed in range(6)])
        assert (bare <= 0.01).mean() < 0.9, "at the ceiling itself as many are above as below"


def test_the_reserve_follows_the_noise_that_is_measured() -> None:
    one = pacer()
    assert one.aim(LIMIT) == 1.0
    for _ in range(1000):
        told(one, 1.0, 100.0)
    assert one.aim(LIMIT) == 1.0, "what does not scatter needs none"
    aims = []
    for scatter in (1.0, 2.0, 30.0, 0.0):
        for i in range(3000):
            told(one, 1.0 + scatter * (-1) ** i, 100.0)
        aims.append(one.aim(LIMIT))
    assert 1.0 > aims[0] > aims[1] > aims[2] == 1.0 - FURTHEST
    assert aims[3] == 1.0
    again = pacer()
    again.load(*one.dump(), one.more())
    assert (again.aim(LIMIT), again.target(LIMIT)) == (one.aim(LIMIT), one.target(LIMIT))


@pytest.mark.parametrize("spec", [SPEC, TENANTS])
def test_prices_are_solved_for_with_the_propensities_that_a_router_states(spec: PolicySpec) -> None:
    learner = PolicyLearner(spec)
    if spec is SPEC:
        learner.learn_many([drifting(i) for i in range(60)])
    else:
        learner.learn_many(some(60))
    made = replace(learner.snapshot(0), multipliers=(), exploration_scale=3.0)
    scorer = BatchScorer(made)
    x = np.random.default_rng(2).standard_normal((40, made.features.dim))
    x[:, -1] = 1.0
    demand = Demand(scorer, x)
    for charge in (0.0, 0.3 * np.arange(len(spec.arms)), 0.0):
        stated = demand.propensities(np.broadcast_to(charge, (40, len(spec.arms))))
        if np.ndim(charge) == 0:
            np.testing.assert_allclose(stated, [scorer.score(row).propensity for row in x], atol=1e-12)
        assert len(set(stated.argmax(axis=1))) > (np.ndim(charge) == 0)


def test_a_debt_is_paid_back_as_dearly_as_it_is_large() -> None:
    one = pacer()
    assert one.most(LIMIT) == np.inf
    for _ in range(100):
        told(one, 0.9)
    assert one.most(LIMIT) == np.inf, "who has saved has nothing to pay back"
    assert one.slow(LIMIT) == pytest.approx(one.aim(LIMIT) - one._due(LIMIT) / SLOWLY)
    assert one.slow(LIMIT) > 1.02
    for due in (5.0, 20.0):
        one = pacer()
        told(one, 1.0 + due)
        one._spread[LIMIT.name] = 0.1
        assert one.most(LIMIT) == pytest.approx(np.exp(HASTE * due / HORIZON))
        assert one.slow(LIMIT) == pytest.approx(1.0 - due / SLOWLY)
        assert one.target(LIMIT) < one.slow(LIMIT)
    one._lag = 2.0 * (SLOWLY - HORIZON) + 200.0
    assert one.slow(LIMIT) == one.target(LIMIT), "the horizon itself where that is longer"


def test_accounts_and_targets_are_bounded() -> None:
    one = pacer()
    for _ in range(900):
        told(one, 0.0)
    # A thrifty time is not squandered later.
    assert one.accounts()["cost_micro_usd"] == -LEAST
    assert 1.0 < one.target(LIMIT) <= MOST
    for _ in range(500):
        told(one, 1e9)
    assert one.accounts()["cost_micro_usd"] == DEBT
    one._planned[LIMIT.name] = 1e9
    assert one.most(LIMIT) == pytest.approx(np.exp(50.0)), "and so is what it may be paid back at"
    one._planned[LIMIT.name] = 0.0
    assert 0.0 <= one.target(LIMIT) < 1.0
    for _ in range(500):
        told(one, 0.0)
    assert one.accounts()["cost_micro_usd"] == -CREDIT, "uses that scatter so much may save up as much by luck"


def test_a_state_of_the_release_before_is_read_and_it_reads_ours() -> None:
    learner = PolicyLearner(FULL)
    learner.learn_many([drifting(i) for i in range(300)])
    data = learner.to_state()
    _, header, numbers = unpack(data)
    lag, seen, accounts = header["control"]["pacing"]
    assert (seen, len(accounts), [len(one) for one in accounts]) == (300, 3, [3, 3, 3])
    kept = len(header["rows"]) * learner.moments.width + NEWEST * learner.layout.dim + 4 * len(FULL.arms)
    assert (numbers.size, lag > 0) == (kept, True)
    before = json.loads(json.dumps(header))
    del before["control"]["plans"]
    bare = pack({key: value for key, value in before.items() if key != "shape"}, numbers)
    again = PolicyLearner.from_state(FULL, bare)
    assert [m.component for m in again.snapshot(0).multipliers] == ["cost", "latency", "failures"]
    for one in (learner, again):
        one.learn_many([drifting(i) for i in range(300, 700)])
    assert again.control._pacer._policy.contexts.tolist() == learner.control._pacer._policy.contexts.tolist()
    assert again.to_state() == PolicyLearner.from_state(FULL, again.to_state()).to_state()


def test_a_policy_without_ceilings_has_the_state_that_it_had() -> None:
    learner = PolicyLearner(SPEC)
    learner.learn_many([drifting(i) for i in range(50)])
    assert "plans" not in unpack(learner.to_state())[1]["control"]
    assert learner.revise(with_ceilings(SPEC, cost_micro_usd=9000.0))
    learner.learn_many([drifting(i) for i in range(50, 90)])
    assert PolicyLearner.from_state(learner.spec, learner.to_state()).to_state() == learner.to_state()
