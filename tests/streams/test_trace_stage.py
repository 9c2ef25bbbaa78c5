"""The whole stage: the same outputs however the log is cut, and wherever it is taken up again."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.policies import Policies
from steersman.codec import Codec
from streams.trace_stage import META, StageOutput, StageSettings, TraceStage
from tests.streams.trace_events import (
    ARMS,
    MS,
    POLICIES,
    T0,
    S,
    decision,
    event,
    feed,
    feedback,
    hex_id,
    run,
    span_id,
    state,
    tick,
)

Triple = tuple[int, int, dict[str, Any]]
WINDOW = ("window_start", "tenant", "agent", "policy", "arm", "operation", "kind")
SETTINGS = StageSettings(lateness_us=5 * S, horizon_us=40 * S)


def log(seed: int, traces: int = 25) -> list[Triple]:
    """A log with everything in it: interleaved traces, disorder, repeats, garbage, skew, ticks, gaps in the offsets."""
    rng = random.Random(seed)
    events: list[tuple[float, dict[str, Any]]] = []
    for i in range(traces):
        start = T0 + i * 900 * MS
        trace = hex_id(f"{seed} {i}", 32)
        end = start + rng.randrange(5 * S)
        mine = [event("AGENT", end, "root", trace=trace, duration_us=end - start)]
        for k in range(rng.randrange(1, 4)):
            name = rng.choice(["p", "nodefault", "last", "mean", "whole"])
            at = start + k * 10 * MS
            parent = span_id(rng.choice(["root", "step0"]))
            arm = rng.choice(ARMS.labels)
            mine.append(
                decision(at, f"d{k}", trace=trace, policy=name, parent_span_id=parent, arm=arm, agent=f"a{i % 3}")
            )
        for k in range(rng.randrange(5)):
            at = rng.randrange(start, end + 1)
            cost = rng.choice([None, rng.randrange(900)])
            status = rng.choice(["OK", "OK", "ERROR"])
            mine.append(
                event(
                    rng.choice(["MODEL_CALL", "TOOL_CALL"]),
                    at,
                    f"step{k}",
                    trace=trace,
                    parent_span_id=span_id("root"),
                    cost_micro_usd=cost,
                    duration_us=at - start,
                    status=status,
                    context_tokens=rng.randrange(1000),
                    context_limit=1000,
                )
            )
        if rng.random() < 0.8:
            mine.append(event("END", end, "root", trace=trace))
        for k in range(rng.randrange(3)):
            target = f"{trace}-{span_id('nobody')}" if rng.random() < 0.2 else None
            at = end + rng.randrange(40 * S)
            mine.append(feedback(at, rng.random(), f"f{k}", trace=trace, target_decision_id=target))
        mine += rng.sample(mine, min(len(mine), rng.randrange(3)))
        for one in mine:
            straggles = one["kind"].endswith("CALL") and rng.random() < 0.1
            events.append((one["ts"] + rng.uniform(-2, 20 if straggles else 2) * S, one))
    for i in range(8):
        events.append((T0 + i * 3 * S, tick(T0 + i * 3 * S)))
        events.append((T0 + i * 3 * S, decision(T0 + i * 3 * S, f"bad{i}", arm="no=arm")))
        events.append((T0 + i * 3 * S, event("AGENT", T0 + (10**9) * S, f"skewed{i}")))
    events += [(T0 + i * 20 * S, tick(T0 + i * 20 * S)) for i in range(3, 12)]
    events.sort(key=lambda pair: pair[0])
    return [(7 + 2 * i, round(at), one) for i, (at, one) in enumerate(events)]


def process(stage: TraceStage, triples: list[Triple], into: StageOutput) -> None:
    out = stage.process(triples)
    into.rewards += out.rewards
    into.rollups += out.rollups
    into.alerts += out.alerts
    into.rejected += out.rejected
    into.counters += out.counters


def everything(out: StageOutput) -> str:
    rejected = [(offset, error.reason) for offset, error in out.rejected]
    return json.dumps([out.rewards, out.rollups, out.alerts, rejected, sorted(out.counters.items())], indent=1)


def whole(triples: list[Triple]) -> StageOutput:
    out = StageOutput()
    process(TraceStage(POLICIES, 3, SETTINGS), triples, out)
    return out


def test_the_log_has_everything_in_it() -> None:
    seen: Counter[str] = Counter()
    for seed in range(5):
        seen += whole(log(seed)).counters
    wanted = {"duplicate", "skewed", "rejected", "ticks", "rewards_complete", "rewards_window", "quality_defaulted"}
    wanted |= {"quality_missing", "late_feedback", "orphan_feedback", "forgotten_traces", "rollup_late"}
    assert wanted <= set(seen), wanted - set(seen)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(0, 400), max_size=12))
def test_batches_do_not_show(seed: int, cuts: list[int]) -> None:
    triples = log(seed)
    expected = whole(triples)
    out, stage = StageOutput(), TraceStage(POLICIES, 3, SETTINGS)
    edges = [0, *sorted(min(cut, len(triples)) for cut in cuts), len(triples)]
    for begin, end in pairwise(edges):
        process(stage, triples[begin:end], out)
    assert everything(out) == everything(expected)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_restarts_do_not_show(seed: int, cuts: list[int]) -> None:
    triples = log(seed)
    expected = whole(triples)
    out, saved = StageOutput(), dict[str, bytes]()
    stage = TraceStage(POLICIES, 3, SETTINGS)
    edges = [0, *sorted(min(cut, len(triples)) for cut in cuts), len(triples)]
    for begin, end in pairwise(edges):
        process(stage, triples[begin:end], out)
        saved = state(stage, saved)
        stage = TraceStage(POLICIES, 3, SETTINGS)
        stage.restore(saved.items())
        assert not end or stage.next_offset == triples[end - 1][0] + 1
        assert stage.open_windows == 0 or stage.clock_us
    assert everything(out) == everything(expected)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 5), st.integers(0, 300), st.integers(1, 300), st.floats(0, 1))
def test_a_checkpoint_cut_off_anywhere_does_no_harm(seed: int, first: int, more: int, share: float) -> None:
    triples = log(seed)
    expected = whole(triples)
    first = min(first, len(triples))
    second = min(first + more, len(triples))
    out, stage = StageOutput(), TraceStage(POLICIES, 3, SETTINGS)
    process(stage, triples[:first], out)
    saved = state(stage)
    process(stage, triples[first:second], out)
    dump = list(stage.dump_dirty().items())
    for key, value in dump[: int(share * len(dump))]:
        saved[key] = value  # type: ignore[assignment]
        if value is None:
            del saved[key]
    stage = TraceStage(POLICIES, 3, SETTINGS)
    stage.restore(saved.items())
    process(stage, triples[first:], out)
    # A consumer drops what is not above the provenance it has seen.
    rewards: list[dict[str, Any]] = []
    highest = (-1, -1)
    for reward in out.rewards:
        place = (reward["source_offset"], reward["seq"])
        if place > highest:
            rewards.append(reward)
            highest = place
    assert rewards == expected.rewards
    assert finals(out.rollups) == finals(expected.rollups)


def finals(rollups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Closed windows by key, without version and provenance."""
    held = {}
    for rollup in rollups:
        if rollup["closed"]:
            key = json.dumps([rollup[k] for k in WINDOW])
            held[key] = {k: v for k, v in rollup.items() if k not in ("source_offset", "seq", "version")}
    return held


@pytest.mark.parametrize("seed", range(4))
def test_provenance_only_grows(seed: int) -> None:
    out = whole(log(seed))
    for records in (out.rewards, out.rollups):
        places = [(record["source_offset"], record["seq"]) for record in records]
        assert places == sorted(set(places))
    both = [(r["source_offset"], r["seq"]) for r in (*out.rewards, *out.rollups)]
    assert len(both) == len(set(both))
    assert {r["source_partition"] for r in (*out.rewards, *out.rollups)} == {3}
    assert all(r["version"] == r["source_offset"] + 1 for r in out.rollups)


def test_every_decision_is_rewarded_once() -> None:
    triples = log(2)
    valid = {e["decision_id"] for _, _, e in triples if e["kind"] == "DECISION" and e["arm"] != "no=arm"}
    out = whole(triples)
    assert Counter(r["decision_id"] for r in out.rewards) == Counter(valid)


def test_outputs_fit_their_contracts() -> None:
    out = whole(log(1))
    for name, records in (("reward", out.rewards), ("rollup", out.rollups)):
        one = Codec(name)
        for record in records:
            back = one.decode(one.encode(record))
            assert set(back) == set(record)
            assert back["source_offset"] == record["source_offset"]


def test_offsets_seen_before_are_skipped() -> None:
    triples = log(0)
    stage = TraceStage(POLICIES, 3, SETTINGS)
    stage.process(triples[:50])
    again = stage.process(triples[:50])
    assert again.counters == {"replayed": 50, "events": 50}
    assert not again.rewards
    assert not again.rollups


def test_memory_is_bounded() -> None:
    stage = TraceStage(POLICIES, 0, StageSettings(lateness_us=2 * S, horizon_us=10 * S))
    bases = [decision(T0), event("END", T0), feedback(T0, 0.5)]
    highest = offset = 0
    for start in range(0, 100_000, 1000):
        batch = []
        for i in range(start, start + 1000):
            # Most traces are one span that never ends; some have a decision and no feedback; some are complete.
            trace, ts = f"{i + 1:032x}", T0 + i * 10 * MS
            for base in bases[: i % 10] if i % 10 in (1, 3) else bases[1:2]:
                changed = {"trace_id": trace, "ts": ts, "event_id": f"{offset:032x}"}
                if base["kind"] == "DECISION":
                    changed["decision_id"] = f"{trace}-{base['span_id']}"
                elif i % 10 not in (1, 3):
                    changed["kind"] = "AGENT"
                batch.append((offset, ts, {**base, **changed}))
                offset += 1
        assert not stage.process(batch).rejected
        stage.dump_dirty()
        highest = max(highest, stage.open_traces)
    # 100 traces a second, remembered for a horizon (10 s), a tenth of them open for a window (60 s).
    assert highest < 100 * 12 + 10 * 72
    feed(stage, [tick(T0 + 3000 * S)])
    assert stage.open_traces == 0
    assert stage.open_windows == 0
    assert stage.needs_tick(T0 + 10_000 * S) is False
    # What is gone is said so once, one checkpoint late.
    stage.dump_dirty()
    assert set(stage.dump_dirty().values()) == {None}
    assert stage.dump_dirty() == {}


def test_needs_tick_exactly_when_time_would_change_something() -> None:
    stage = TraceStage(POLICIES, 0)
    assert not stage.needs_tick(T0)
    feed(stage, [decision(T0), event("END", T0 + S), feedback(T0 + S, 0.5)])
    assert not stage.needs_tick(T0 + S)
    assert not stage.needs_tick(T0 + S + 100 * MS)
    assert stage.needs_tick(T0 + S + 200 * MS)
    ticks = 0
    now = T0 + S
    while now < T0 + 5000 * S:
        now += 500 * MS
        if stage.needs_tick(now):
            feed(stage, [tick(now)])
            ticks += 1
    assert stage.open_traces == stage.open_windows == 0
    assert ticks < 10


def test_a_decision_whose_policy_is_gone_after_a_restart_is_dropped_and_counted() -> None:
    stage, _ = run([decision(T0), event("END", T0 + S)])
    fresh = TraceStage(Policies.of(), 3)
    fresh.restore(state(stage).items())
    out = feed(fresh, [tick(T0 + 100 * S)])
    assert out.counters["dropped_decisions"] == 1
    assert out.rewards == []


def test_state_that_cannot_be_read_is_refused() -> None:
    stage, _ = run([decision(T0)])
    saved = state(stage)
    for items, message in (
        ({"what": b"1"}, "unknown key"),
        ({META: saved[META].replace(b'"form":1', b'"form":9')}, "form 9"),
        ({"trace:" + "a" * 32 + ":default": b'["what"]'}, "unknown form"),
        ({"trace:x": b"{"}, "Expecting"),
    ):
        with pytest.raises(ValueError, match=message):
            TraceStage(POLICIES, 3).restore(items.items())
    with pytest.raises(ValueError, match="windows of 10000000"):
        TraceStage(POLICIES, 3, StageSettings(window_us=S)).restore(saved.items())


@pytest.mark.parametrize(
    "wrong",
    [{"window_us": 0}, {"lateness_us": -1}, {"horizon_us": 1}, {"max_events_per_trace": 0}],
)
def test_settings_that_cannot_work(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        StageSettings(**wrong)


def test_a_trace_that_is_heard_of_again_after_it_was_forgotten_keeps_its_state() -> None:
    stage = TraceStage(POLICIES, 3, SETTINGS)
    feed(stage, [event("AGENT", T0, "first")])
    # Forgotten and reopened between two checkpoints.
    feed(stage, [tick(T0 + 60 * S), event("AGENT", T0 + 61 * S, "second")])
    saved = state(stage)
    feed(stage, [tick(T0 + 62 * S)])
    saved = state(stage, saved)
    restored = TraceStage(POLICIES, 3, SETTINGS)
    restored.restore(saved.items())
    assert restored.open_traces == stage.open_traces == 1
