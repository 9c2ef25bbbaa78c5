"""What the decisions of one trace share: splits that add up, and peers that are named, whatever the order of arrival."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.team import MAX_PEERS, split
from streams.trace_stage import StageSettings, TraceStage
from tests.streams.trace_events import ARMS, MS, POLICIES, T0, S, decision, event, feed, feedback, run, state, tick

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)
ROOT = event("AGENT", T0 + 2 * S, "root", duration_us=2 * S)
END = event("END", T0 + 2 * S + MS, "end")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(total=FINITE | st.just(5e-324) | st.just(-0.0), weights=WEIGHTS, order=st.randoms(use_true_random=False))
def test_parts_add_up_exactly_in_any_order(total: float, weights: list[float], order: Any) -> None:
    parts = split(total, weights)
    order.shuffle(parts)
    assert sum(parts) == total == math.fsum(parts)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(total=st.floats(-1e12, 1e12), weights=WEIGHTS)
def test_parts_are_proportional_to_the_last_bit_of_the_total(total: float, weights: list[float]) -> None:
    for part, weight in zip(split(total, weights), weights, strict=True):
        assert part == pytest.approx(total * weight / math.fsum(weights), rel=1e-9, abs=1.01 * math.ulp(total))


def team(*names: str) -> list[dict[str, Any]]:
    return [
        decision(T0 + (10 + i) * MS, f"{name}{i}", policy=name, arm=ARMS.labels[i % 4]) for i, name in enumerate(names)
    ]


def rewards_of(events: list[dict[str, Any]], settle_at: int = T0 + 20 * S) -> dict[str, dict[str, Any]]:
    _, out = run(events, settle_at=settle_at)
    return {reward["decision_id"]: reward for reward in out.rewards}


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    names=st.lists(st.sampled_from(["even", "triple", "p"]), min_size=1, max_size=6),
    quality=st.floats(-1e6, 1e6),
    order=st.randoms(use_true_random=False),
)
def test_shares_of_a_trace_add_up_to_its_quality(names: list[str], quality: float, order: Any) -> None:
    events = [*team(*names), ROOT, END, feedback(T0 + 3 * S, quality)]
    order.shuffle(events)
    rewards = list(rewards_of(events).values())
    shares = [reward for reward in rewards if reward["policy"] != "p"]
    assert len(rewards) == len(names)
    assert all(reward["quality"] == quality for reward in rewards if reward["policy"] == "p")
    if shares:
        assert sum(reward["quality"] for reward in shares) == quality
        assert {reward["trace_quality"] for reward in shares} == {quality}
    by_weight = {reward["policy"]: reward["quality"] for reward in shares}
    if set(by_weight) == {"even", "triple"}:
        assert by_weight["triple"] == pytest.approx(3 * by_weight["even"], abs=1e-9)


def test_only_feedback_on_the_whole_trace_is_shared() -> None:
    one, two = team("even", "triple")
    aimed = feedback(T0 + 3 * S, 0.1, "aimed", target_decision_id=one["decision_id"])
    whole = feedback(T0 + 4 * S, 0.8, "whole")
    found = rewards_of([one, two, ROOT, END, aimed, whole])
    assert [found[d["decision_id"]]["quality"] for d in (one, two)] == pytest.approx([0.2, 0.6])
    unjudged = rewards_of([one, two, ROOT, END, aimed], settle_at=T0 + 90 * S)
    assert {reward["quality"] for reward in unjudged.values()} == {None}


def test_who_comes_after_the_split_gets_nothing_of_it() -> None:
    one, two = team("even", "triple")
    late = decision(T0 + 30 * S, "late", policy="triple")
    out = rewards_of([one, two, ROOT, END, feedback(T0 + 3 * S, 1.0), tick(T0 + 5 * S), late], settle_at=T0 + 130 * S)
    assert sum(out[d["decision_id"]]["quality"] for d in (one, two)) == 1.0
    assert out[late["decision_id"]]["quality"] is None
    assert out[late["decision_id"]]["trace_quality"] is None


def test_a_restart_between_two_shares_changes_nothing() -> None:
    one = decision(T0 + 10 * MS, "one", policy="even")
    two = decision(T0 + 30 * S, "two", policy="even")
    events = [one, two, ROOT, feedback(T0 + 3 * S, 0.7)]  # no END: each closes with its own window
    ends = [tick(T0 + 61 * S), tick(T0 + 95 * S)]
    for cut in range(len(events) + 2):
        stage = TraceStage(POLICIES, 3, StageSettings())
        rewards: list[dict[str, Any]] = []
        for number, one_event in enumerate([*events, *ends]):
            if number == cut:
                saved = state(stage)
                stage = TraceStage(POLICIES, 3, StageSettings())
                stage.restore(saved.items())
            rewards += feed(stage, [one_event]).rewards
        assert [reward["quality"] for reward in rewards] == [0.35, 0.35]
        assert [reward["ts"] for reward in rewards] == sorted(reward["ts"] for reward in rewards)


def test_peers_are_named_in_any_order_of_arrival_and_across_a_restart() -> None:
    events = [*team("against", "even", "p", "last"), ROOT, END, feedback(T0 + 3 * S, 1.0)]
    wanted = f"even {ARMS.labels[1]}\np {ARMS.labels[2]}"
    for order in itertools.islice(itertools.permutations(events), 0, 5040, 97):
        found = {reward["policy"]: reward["peers"] for reward in rewards_of(list(order), T0 + 100 * S).values()}
        assert found == {"against": wanted, "even": "", "p": "", "last": ""}
    stage = TraceStage(POLICIES, 3, StageSettings())
    out = feed(stage, [*events, tick(T0 + 5 * S)]).rewards
    assert {reward["policy"] for reward in out} == {"against", "even", "p"}  # "last" waits for its window
    saved = state(stage)
    stage = TraceStage(POLICIES, 3, StageSettings())
    stage.restore(saved.items())
    second = decision(T0 + 6 * S, "second", policy="against", arm=ARMS.labels[3])
    rewards = feed(stage, [second, tick(T0 + 70 * S)]).rewards
    named = next(reward["peers"] for reward in rewards if reward["decision_id"] == second["decision_id"])
    assert named == f"against {ARMS.labels[0]}\n{wanted}"


def test_no_more_peers_than_a_record_bears() -> None:
    crowd = [decision(T0 + 10 * MS + i, f"c{i}", policy="p") for i in range(250)]
    again = [decision(T0 + 6 * S + i, f"again{i}", policy="p") for i in range(100)]
    asked = decision(T0 + 7 * S, "asked", policy="against")
    events = [*crowd, ROOT, END, feedback(T0 + 3 * S, 1.0), tick(T0 + 5 * S), *again, asked]
    found = rewards_of(events, settle_at=T0 + 90 * S)[asked["decision_id"]]["peers"]
    assert len(found.split("\n")) == MAX_PEERS
