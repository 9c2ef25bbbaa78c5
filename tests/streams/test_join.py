"""Rewards out of events in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.join import MAX_OPEN_DECISIONS
from tests.streams.trace_events import (
    ARM,
    MS,
    POLICIES,
    T0,
    TRACE,
    S,
    decision,
    event,
    feed,
    feedback,
    hex_id,
    run,
    span_id,
    tick,
)

ROOT = event("AGENT", T0 + 2000 * MS, "root", duration_us=2000 * MS, cost_micro_usd=0)
DECISION = decision(T0 + 10 * MS, parent_span_id=span_id("root"))
MODEL = event(
    "MODEL_CALL",
    T0 + 900 * MS,
    "model",
    parent_span_id=span_id("root"),
    duration_us=800 * MS,
    cost_micro_usd=700,
    input_tokens=1200,
    output_tokens=90,
    operation="large",
)
TOOL = event(
    "TOOL_CALL",
    T0 + 1500 * MS,
    "tool",
    parent_span_id=span_id("model"),
    duration_us=300 * MS,
    cost_micro_usd=300,
    status="ERROR",
)
END = event("END", T0 + 2001 * MS, "root")
FEEDBACK = feedback(T0 + 9 * S, 0.75)
TRACE_EVENTS = [DECISION, MODEL, TOOL, ROOT, END, FEEDBACK]


def without_provenance(rewards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dropped = {"source_partition", "source_offset", "seq"}
    return [{k: v for k, v in reward.items() if k not in dropped} for reward in rewards]


def test_golden_reward() -> None:
    _, out = run(TRACE_EVENTS, settle_at=T0 + 20 * S)
    assert out.rewards == [
        {
            "decision_id": DECISION["decision_id"],
            "tenant": "default",
            "policy": "p",
            "trace_id": TRACE,
            "agent": "agent",
            "ts": T0 + 9 * S + 200 * MS,
            "decided_at": T0 + 10 * MS,
            "policy_epoch": 1,
            "policy_version": 7,
            "arm": ARM,
            "propensity": 0.5,
            "explored": False,
            "mode": "LIVE",
            "features": [1.0],
            "eligible": [],
            "quality": 0.75,
            "quality_defaulted": False,
            "cost_micro_usd": 1000,
            "latency_us": 2 * S,
            "failures": 1,
            "utility": pytest.approx(0.75 - 0.5 * 1.0 - 0.25 * 2.0 - 0.1),
            "reward_spec": POLICIES.get("default", "p").reward_hash,  # type: ignore[union-attr]
            "input_tokens": 1200,
            "output_tokens": 90,
            "spans": 3,
            "feedback_count": 1,
            "feedback_delay_us": 9 * S - 10 * MS,
            "closed_by": "COMPLETE",
            "context_fill": None,
            "trace_quality": None,
            "hits": "",
            "tool_calls": 1,
            "peers": "",
            "source_partition": 3,
            "source_offset": 6,
            "seq": 0,
            "source": None,
        }
    ]
    assert not out.rejected


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    order=st.permutations(TRACE_EVENTS),
    repeats=st.lists(st.sampled_from(TRACE_EVENTS), max_size=6),
    where=st.lists(st.integers(0, 12), min_size=6, max_size=6),
)
def test_any_arrival_order_gives_the_same_reward(
    order: list[dict[str, Any]], repeats: list[dict[str, Any]], where: list[int]
) -> None:
    arrivals = list(order)
    for one, place in zip(repeats, where, strict=False):
        arrivals.insert(min(place, len(arrivals)), one)
    _, expected = run(TRACE_EVENTS, settle_at=T0 + 20 * S)
    _, out = run(arrivals, settle_at=T0 + 20 * S)
    assert without_provenance(out.rewards) == without_provenance(expected.rewards)
    assert out.counters["duplicate"] == len(repeats)
    assert out.counters["rewards_complete"] == 1


times = st.integers(0, 50 * S).map(lambda ms: T0 + ms)
spans = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from(["root", *"abcdef", None]),
        times,
        st.integers(0, 5 * S) | st.none(),
        st.integers(0, 1000),
        st.sampled_from(["OK", "ERROR", "TIMEOUT"]),
    ),
    max_size=8,
)
decisions = st.lists(
    st.tuples(
        st.sampled_from(["p", "nodefault", "last", "max", "mean", "whole"]),
        st.sampled_from(["root", "a", "b", None]),
        times,
    ),
    min_size=1,
    max_size=3,
)
judgements = st.lists(
    st.tuples(
        st.floats(-10, 10, allow_nan=False),
        st.sampled_from([None, "d0", "d1", "d9"]),
        st.sampled_from([None, "root", "a"]),
        st.sampled_from(["quality", "other"]),
        times,
    ),
    max_size=5,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(spans=spans, decisions=decisions, judgements=judgements, ended=st.booleans(), data=st.data())
def test_any_trace_in_any_order(
    spans: list[Any], decisions: list[Any], judgements: list[Any], ended: bool, data: st.DataObject
) -> None:
    events = [
        event(
            "TOOL_CALL",
            ts,
            name,
            event_id=hex_id(f"s{i}", 32),
            parent_span_id=span_id(parent) if parent else None,
            duration_us=duration,
            cost_micro_usd=cost,
            status=status,
        )
        for i, (name, parent, ts, duration, cost, status) in enumerate(spans)
    ]
    events += [
        decision(ts, f"d{i}", policy=name, parent_span_id=span_id(parent) if parent else None)
        for i, (name, parent, ts) in enumerate(decisions)
    ]
    events += [
        feedback(
            ts,
            value,
            event_id=hex_id(f"f{i}", 32),
            metric=metric,
            target_decision_id=f"{TRACE}-{span_id(target)}" if target else None,
            target_span_id=span_id(span) if span else None,
        )
        for i, (value, target, span, metric, ts) in enumerate(judgements)
    ]
    if ended:
        events.append(event("END", T0 + 30 * S, "root"))
    order = data.draw(st.permutations(events))
    after = T0 + 300 * S
    _, expected = run(events, settle_at=after)
    _, out = run(order, settle_at=after)
    assert len(expected.rewards) == len(decisions)
    assert without_provenance(out.rewards) == without_provenance(expected.rewards)
    assert not out.rejected


def test_waits_for_the_settle_time_in_event_time() -> None:
    stage, out = run(TRACE_EVENTS)
    assert out.rewards == []
    assert feed(stage, [tick(T0 + 9 * S + 199 * MS)]).rewards == []
    assert len(feed(stage, [tick(T0 + 9 * S + 200 * MS)]).rewards) == 1


def test_late_and_repeated_events_do_not_reopen_a_closed_trace() -> None:
    stage, out = run(TRACE_EVENTS, settle_at=T0 + 20 * S)
    assert len(out.rewards) == 1
    late = [feedback(T0 + 21 * S, 0.1), event("TOOL_CALL", T0 + 21 * S, "x"), FEEDBACK, DECISION]
    counters = feed(stage, late).counters
    assert (counters["late_feedback"], counters["late_span"], counters["duplicate"]) == (1, 1, 2)
    # Reduced to a marker the trace still knows its events.
    stage_out = feed(stage, [tick(T0 + 100 * S), TOOL, late[0], feedback(T0 + 99 * S, 0.2), DECISION])
    assert stage_out.counters["duplicate"] == 3
    assert stage_out.counters["late_feedback"] == 1
    later = feed(stage, [event("END", T0 + 99 * S, "e"), decision(T0 + 99 * S, "d2"), event("AGENT", T0, "y")])
    assert (later.counters["late_end"], later.counters["late_decision"], later.counters["late_span"]) == (1, 1, 1)
    assert not stage_out.rewards
    assert not later.rewards


def test_a_straggling_decision_of_an_ended_trace_is_rewarded_within_the_lateness() -> None:
    stage, _ = run(TRACE_EVENTS, settle_at=T0 + 20 * S)
    out = feed(stage, [decision(T0 + 11 * MS, "second", parent_span_id=span_id("model")), tick(T0 + 21 * S)])
    assert [reward["cost_micro_usd"] for reward in out.rewards] == [1000]
    assert out.rewards[0]["latency_us"] == 800 * MS


def test_default_at_the_end_of_the_window_and_null_without_one() -> None:
    events = [DECISION, decision(T0 + 20 * MS, "other", policy="nodefault"), END]
    stage, out = run(events, settle_at=T0 + 59 * S)
    assert out.rewards == []
    rewards = feed(stage, [tick(T0 + 61 * S)]).rewards
    assert [r["quality"] for r in rewards] == [0.25, None]
    assert [r["quality_defaulted"] for r in rewards] == [True, False]
    assert rewards[1]["utility"] is None
    assert {r["closed_by"] for r in rewards} == {"WINDOW"}
    assert [r["ts"] for r in rewards] == [T0 + 60 * S + 10 * MS, T0 + 60 * S + 20 * MS]


def test_feedback_after_the_window_does_not_count_even_when_it_arrives_first() -> None:
    late = feedback(T0 + 70 * S, 1.0)
    _, out = run([late, DECISION, END], settle_at=T0 + 200 * S)
    assert [r["quality"] for r in out.rewards] == [0.25]


@pytest.mark.parametrize(
    ("name", "quality", "count", "delay"),
    [("p", 0.5, 1, 3), ("last", 0.25, 3, 7), ("max", 1.0, 3, 7), ("mean", 1.75 / 3, 3, 7)],
)
def test_aggregations(name: str, quality: float, count: int, delay: int) -> None:
    judgements = [feedback(T0 + 7 * S, 0.25), feedback(T0 + 3 * S, 0.5), feedback(T0 + 5 * S, 1.0)]
    events = [decision(T0, policy=name), END, *judgements, feedback(T0 + 2 * S, None, label="good")]
    _, out = run(events, settle_at=T0 + 61 * S)
    (reward,) = out.rewards
    assert reward["quality"] == pytest.approx(quality)
    assert reward["feedback_count"] == count
    assert reward["feedback_delay_us"] == delay * S
    assert reward["closed_by"] == ("COMPLETE" if name == "p" else "WINDOW")


def test_equal_times_are_ordered_by_event_id() -> None:
    one = feedback(T0 + S, 0.1, event_id="0" * 31 + "1")
    two = feedback(T0 + S, 0.9, event_id="0" * 31 + "2")
    for order in ([one, two], [two, one]):
        _, out = run([DECISION, END, *order], settle_at=T0 + 61 * S)
        assert out.rewards[0]["quality"] == 0.1


def test_feedback_reaches_the_decisions_it_is_aimed_at() -> None:
    first = decision(T0, "d1", parent_span_id=span_id("a"))
    second = decision(T0 + MS, "d2", parent_span_id=span_id("b"))
    events = [
        first,
        second,
        END,
        feedback(T0 + 3 * S, 0.9, target_decision_id=first["decision_id"]),
        feedback(T0 + 3 * S, 0.4, target_span_id=span_id("b")),
        feedback(T0 + 2 * S, 0.1, metric="politeness"),
    ]
    _, out = run(events, settle_at=T0 + 10 * S)
    assert {r["decision_id"]: r["quality"] for r in out.rewards} == {
        first["decision_id"]: 0.9,
        second["decision_id"]: 0.4,
    }
    _, whole = run([*events[:3], feedback(T0 + S, 0.6)], settle_at=T0 + 10 * S)
    assert [r["quality"] for r in whole.rewards] == [0.6, 0.6]


def test_two_decisions_of_one_trace_close_independently() -> None:
    first = decision(T0, "d1")
    second = decision(T0 + 1, "d2")
    events = [first, second, END, feedback(T0 + 3 * S, 0.9, target_decision_id=second["decision_id"])]
    stage, out = run(events, settle_at=T0 + 4 * S)
    assert [r["decision_id"] for r in out.rewards] == [second["decision_id"]]
    out = feed(stage, [feedback(T0 + 5 * S, 0.3, target_decision_id=first["decision_id"]), tick(T0 + 6 * S)])
    assert [(r["decision_id"], r["quality"]) for r in out.rewards] == [(first["decision_id"], 0.3)]


def test_orphans_are_counted_at_the_horizon() -> None:
    stage, _ = run([feedback(T0, 0.5), feedback(T0, 1.0, trace="b" * 32)], settle_at=T0 + 3599 * S)
    assert stage.open_traces == 2
    out = feed(stage, [tick(T0 + 3600 * S)])
    assert out.counters["orphan_feedback"] == 2
    assert stage.open_traces == 0
    missed = feedback(T0 + 3 * S, 0.1, target_decision_id=f"{TRACE}-{span_id('nobody')}")
    _, out = run([*TRACE_EVENTS, missed], settle_at=T0 + 60 * S)
    assert out.counters["orphan_feedback"] == 1


def test_feedback_waits_for_its_decision() -> None:
    stage, _ = run([FEEDBACK, END], settle_at=T0 + 1000 * S)
    out = feed(stage, [decision(T0 + 10 * MS), tick(T0 + 1001 * S)])
    assert [r["quality"] for r in out.rewards] == [0.75]


def test_one_tenant_cannot_judge_the_decisions_of_another() -> None:
    _, out = run([DECISION, END, feedback(T0 + S, 1.0, tenant="mallory")], settle_at=T0 + 61 * S)
    assert [r["quality"] for r in out.rewards] == [0.25]


def test_two_records_of_one_decision_the_earlier_holds() -> None:
    one = decision(T0 + 5, arm=ARM)
    two = {**decision(T0 + 9), "arm": "model=large;top_k=8", "event_id": "f" * 32}
    for order in ([one, two], [two, one]):
        _, out = run([*order, END, FEEDBACK], settle_at=T0 + 20 * S)
        assert [r["arm"] for r in out.rewards] == [ARM]
        assert out.counters["decision_conflict"] == 1


def test_a_trace_holds_a_bounded_number_of_events() -> None:
    many = [event("TOOL_CALL", T0 + i, f"s{i}", cost_micro_usd=1) for i in range(30)]
    _, out = run([DECISION, *many, FEEDBACK], settle_at=T0 + 90 * S, max_events_per_trace=10)
    assert out.counters["trace_overflow"] == 22
    assert [r["closed_by"] for r in out.rewards] == ["WINDOW"]


def test_the_decisions_of_a_trace_that_wait_are_bounded_too() -> None:
    many = [decision(T0 + i, f"d{i}") for i in range(MAX_OPEN_DECISIONS + 5)]
    _, out = run([*many, END], settle_at=T0 + 90 * S)
    assert out.counters["trace_overflow"] == 5
    assert len(out.rewards) == MAX_OPEN_DECISIONS


def test_chatter_after_the_window_does_not_hold_a_reward_back() -> None:
    events = [DECISION, END]
    stage, out = run(events)
    rewards = out.rewards
    for i in range(1, 2000):
        rewards += feed(stage, [event("TOOL_CALL", T0 + i * 100 * MS, f"s{i}")]).rewards
    assert len(rewards) == 1
    assert rewards[0]["ts"] <= T0 + 10 * MS + 60 * S + 30 * S
