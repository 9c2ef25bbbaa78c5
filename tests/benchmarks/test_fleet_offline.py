"""The fleet in simulated time: the same run for the same seed, every decision rewarded, every rule of the credit benchmark."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.credit import Yardstick, interval, policies_of, shares_of
from benchmarks.credit_rules import RAW, RULES, one_number, true_difference, without_peers
from benchmarks.fleet import at_bar, outcome
from benchmarks.fleet_offline import OfflineFleet, play
from examples.fleet.optimum import expected, optimum
from examples.fleet.query import draw_query
from examples.fleet.tally import Interaction
from examples.fleet.world import BASELINE, ROLES, SHARE
from learners.policies import Policies


def rewards_of(policies: Policies, n: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All rewards that the trace stage made in a run, and the run goes on until the judge is done."""
    seen: list[dict[str, Any]] = []
    fleet = OfflineFleet(policies, 5, steps_judged=False)
    process = fleet._trace.process

    def listen(events: Any) -> Any:
        output = process(events)
        assert not output.rejected
        seen.extend(output.rewards)
        return output

    monkeypatch.setattr(fleet._trace, "process", listen)
    done = list(fleet.run(n + 120))  # three seconds more
    wanted = {str(one.query.index) for one in done[:n]}
    assert len(wanted) == n
    return seen


@pytest.mark.parametrize("rule", RULES)
def test_every_decision_is_rewarded_under_every_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = rewards_of(policies_of(rule), 30, monkeypatch)
    by_trace: dict[str, list[dict[str, Any]]] = {}
    for reward in rewards:
        by_trace.setdefault(reward["trace_id"], []).append(reward)
    complete = [group for group in by_trace.values() if len(group) == len(ROLES)]
    assert len(complete) >= 30
    for group in complete:
        assert {reward["policy"] for reward in group} == {f"research/{role}" for role in ROLES}
        assert all(reward["utility"] is not None for reward in group)
        latencies = [reward["latency_us"] for reward in group]
        assert (len(set(latencies)) == 1) == (RULES[rule].changes["credit"] == "trace")
        lines = {len(reward["peers"].split("\n")) if reward["peers"] else 0 for reward in group}
        assert lines == {3 if RULES[rule].changes.get("quality_credit") == "difference" else 0}
        if RULES[rule].changes.get("quality_credit") == "shared":
            assert sum(reward["quality"] for reward in group) == group[0]["trace_quality"]


def rewritten(rewrite: Any, role: str, one: Interaction) -> tuple[float, int, int]:
    reward = {"policy": f"research/{role}", "quality": 0.8, "cost_micro_usd": 1_000_000, "latency_us": 40_000_000}
    rewrite(reward, one)
    return reward["quality"], reward["cost_micro_usd"], reward["latency_us"]


def test_what_only_a_simulation_can_subtract() -> None:
    query = draw_query(9, 1)
    assert rewritten(one_number, "citation", Interaction(query, BASELINE, (), 1, 1, 1, 0.5)) == (
        pytest.approx(0.8 - 0.5 - 0.5), 0, 0,
    )  # fmt: skip
    best, base = expected(query, optimum(query)), expected(query, BASELINE)
    assert best != base
    one = Interaction(query, optimum(query), ("LIVE",) * 4, 1, 1, 1, 0.5)
    for role in ROLES:
        others = expected(query, {**one.setting, role: BASELINE[role]})
        quality, cost, latency = rewritten(true_difference, role, one)
        assert quality == pytest.approx(0.8 - others.quality)
        assert (cost, latency) == (
            1_000_000 - round(others.cost_micro_usd), 40_000_000 - round(others.latency_us),
        )  # fmt: skip
        assert rewritten(without_peers, role, one)[0] == pytest.approx(quality + base.quality)
    as_baseline = Interaction(query, BASELINE, ("LIVE",) * 4, 1, 1, 1, 0.5)
    assert rewritten(without_peers, "synthesis", as_baseline) == (pytest.approx(0.8), 1_000_000, 40_000_000)


def test_a_rewrite_is_what_is_learned() -> None:
    """Were it not, the runs would be the same: all of a fleet's later decisions rest on what was learned."""
    policies = policies_of(RAW)
    seen: list[tuple[str, int]] = []

    def note(reward: dict[str, Any], one: Interaction) -> None:
        seen.append((reward["trace_id"], one.query.index))
        true_difference(reward, one)

    with_it = play(policies, 3, 150, steps_judged=False, rewrite=note)
    assert len(set(seen)) * len(ROLES) == len(seen) > 300
    assert with_it != play(policies, 3, 150, steps_judged=False)
    assert shares_of(RAW, None, 3, 60) == shares_of(RAW, None, 3, 60)


def test_a_seed_names_a_run() -> None:
    policies = policies_of(RAW)
    one, two, other = (play(policies, seed, 60, steps_judged=False) for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_baseline_and_optimum_are_the_ends_of_the_yardstick() -> None:
    def as_decided(setting: Any) -> list[Interaction]:
        queries = [draw_query(9, i) for i in range(20)]
        return [Interaction(q, setting(q), ("LIVE",) * 4, 1, 1, 1, 0.5) for q in queries]

    yardstick = Yardstick()
    assert yardstick.share(9, as_decided(lambda _: BASELINE)) == pytest.approx(0.0)
    assert yardstick.share(9, as_decided(optimum)) == pytest.approx(1.0)
    assert outcome(as_decided(optimum))["share of optimum"] == pytest.approx(1.0)
    assert sum(SHARE.values()) == pytest.approx(1.0)


def test_bars_and_intervals() -> None:
    assert at_bar("latency", -0.6)
    assert not at_bar("latency", -0.57)
    assert at_bar("share of optimum", 0.85)
    assert not at_bar("quality of complex queries", -0.001)
    assert interval([1.0, 3.0]) == (2.0, 0.0, 4.0)
    assert interval([1.0]) == (1.0, -math.inf, math.inf)
