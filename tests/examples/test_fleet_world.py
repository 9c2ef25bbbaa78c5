"""The world model: the stated baseline, an optimum that reaches what is promised, and the same numbers every time."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.fleet import world
from examples.fleet.optimum import Expected, expected, optimum
from examples.fleet.query import Query, draw_query
from examples.fleet.tally import Interaction, Tally
from examples.fleet.world import ARMS, BASELINE, KNOBS, METRIC, ROLES, SHARE, Upstream, means, perform
from learners.policies_file import load_policies

POLICIES = load_policies(Path(__file__).resolve().parents[2] / "policies.toml")


def mean(values: list[Expected], name: str) -> float:
    return float(np.mean([getattr(value, name) for value in values]))


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    return [draw_query(11, index) for index in range(4000)]


def test_static_baseline_averages_12_seconds(queries: list[Query]) -> None:
    latency_s = mean([expected(query, BASELINE) for query in queries], "latency_us") / 1e6
    assert latency_s == pytest.approx(12.0, rel=0.03)


def test_optimum_reaches_what_the_demo_promises(queries: list[Query]) -> None:
    baseline = [expected(query, BASELINE) for query in queries]
    best = [expected(query, optimum(query)) for query in queries]
    assert mean(best, "latency_us") <= 0.45 * mean(baseline, "latency_us")
    assert mean(best, "cost_micro_usd") <= 0.60 * mean(baseline, "cost_micro_usd")
    assert mean(best, "quality") > mean(baseline, "quality")
    hard = [i for i, query in enumerate(queries) if query.complexity > 2 / 3]
    assert mean([best[i] for i in hard], "quality") > mean([baseline[i] for i in hard], "quality") + 0.02


def test_optimum_is_the_best_of_all_joint_settings() -> None:
    for index in range(2):
        query = draw_query(3, index)
        every = itertools.product(*(ARMS[role] for role in ROLES))
        some = itertools.islice(every, index, None, 7)
        best = expected(query, optimum(query)).utility
        assert best >= max(expected(query, dict(zip(ROLES, arms, strict=True))).utility for arms in some)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31), index=st.integers(0, 10**6))
def test_queries_are_pure_and_within_their_ranges(seed: int, index: int) -> None:
    query = draw_query(seed, index)
    assert query == draw_query(seed, index)
    assert 0 <= query.complexity <= 1
    assert 0 <= query.estimate <= 1
    assert query.words >= 4
    assert Query.from_message(query.to_message()) == query
    assert "index" not in query.context()
    assert query.complexity not in query.context().values() or query.complexity == query.estimate


@pytest.mark.parametrize("role", ROLES)
def test_outcomes_are_seeded_and_scatter_around_their_means(role: str) -> None:
    query, upstream = draw_query(1, 5), Upstream(2, 9600)
    arm = BASELINE[role]
    one = perform(role, query, arm, upstream, np.random.default_rng(4))
    assert one == perform(role, query, arm, upstream, np.random.default_rng(4))
    rng, i = np.random.default_rng(0), world.arm_index(role, arm)
    drawn = [perform(role, query, arm, upstream, rng) for _ in range(4000)]
    told = means(role, query, upstream)
    assert np.mean([d.latency_us for d in drawn]) == pytest.approx(told.latency[i], rel=0.02)
    assert np.mean([d.cost_micro_usd for d in drawn]) == pytest.approx(told.cost[i], rel=0.02)
    assert {d.quality for d in drawn} == {told.quality[i]}


@pytest.mark.parametrize("role", ROLES)
def test_policies_file_says_what_the_world_says(role: str) -> None:
    spec = POLICIES.get("default", f"research/{role}")
    assert spec is not None
    assert dict(spec.arms.knobs) == KNOBS[role]
    assert tuple(dict(arm) for arm in spec.arms.arms) == ARMS[role]
    assert dict(spec.arms.arms[spec.arms.index(spec.baseline)]) == BASELINE[role]
    assert spec.reward.metric == METRIC[role]
    reward, weights = spec.reward, spec.reward.weights
    assert weights.quality == (1.0 if role == "orchestrator" else SHARE[role])
    assert reward.scales.cost_micro_usd / weights.cost == pytest.approx(world.COST_SCALE_MICRO_USD, rel=1e-4)
    assert reward.scales.latency_us / weights.latency == pytest.approx(world.LATENCY_SCALE_US, rel=1e-4)
    known = {**draw_query(1, 1).context(), **dict.fromkeys(field.name for field in fields(Upstream))}
    assert {feature.name for feature in spec.features.features} <= known.keys()
    assert {"lookup", "explain", "compare", "survey"} == set(
        next(feature.values for feature in spec.features.features if feature.name == "kind")  # type: ignore[union-attr]
    )


def test_tally_compares_on_the_same_queries_and_leaves_the_control_group_out() -> None:
    tally = Tally()
    for index in range(40):
        query, control = draw_query(2, index), index % 4 == 0
        modes = ("HOLDOUT" if control else "LIVE",)
        setting = BASELINE if control else optimum(query)
        value = expected(query, setting)
        tally.add(
            Interaction(
                query, setting, modes, index, round(value.latency_us), round(value.cost_micro_usd), value.quality
            )
        )
    summary = tally.summary()
    assert (summary["interactions"], summary["control"]) == (40, 10)
    assert summary["all"]["regret"] == pytest.approx(0.0)
    assert summary["all"]["latency_ms"] == pytest.approx(summary["all"]["optimum"]["latency_ms"], rel=1e-4)
    assert summary["all"]["latency_change"] < -0.3
    assert Tally().summary()["last_quarter"]["quality"] == 0.0
