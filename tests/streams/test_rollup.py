"""Windows equal a naive recomputation, whatever the order of arrival."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.histogram import bucket_of
from streams.trace_stage import StageSettings, TraceStage
from streams.window import Window, WindowKey
from tests.streams.trace_events import ARM, MS, POLICIES, T0, S, decision, event, feed, feedback, hex_id, run, tick

W = 10 * S
KEY = ("window_start", "tenant", "agent", "policy", "arm", "operation", "kind")


def latest(rollups: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What an upsert by version leaves."""
    held: dict[tuple[Any, ...], dict[str, Any]] = {}
    for rollup in rollups:
        key = tuple(rollup[name] for name in KEY)
        assert key not in held or held[key]["version"] < rollup["version"]
        held[key] = rollup
    return held


def naive(events: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in {one["event_id"]: one for one in events}.values():
        names = (one["policy"] or "", one["arm"] or "", one["operation"] or "")
        groups[(one["ts"] // W * W, one["tenant"], one["agent"], *names, one["kind"])].append(one)
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, group in groups.items():
        durations = [one["duration_us"] for one in group if one["duration_us"] is not None]
        fills = [
            one["context_tokens"] / one["context_limit"]
            for one in group
            if one["context_tokens"] is not None and one["context_limit"]
        ]
        buckets = sorted({bucket_of(d) for d in durations})
        sums[key] = {
            "events": len(group),
            "errors": sum(one["status"] != "OK" for one in group),
            "explored": sum(one["explored"] is True for one in group),
            "input_tokens": sum(one["input_tokens"] or 0 for one in group),
            "cost_micro_usd": sum(one["cost_micro_usd"] or 0 for one in group),
            "unpriced": sum(
                one["cost_micro_usd"] is None and one["kind"] in ("MODEL_CALL", "TOOL_CALL") for one in group
            ),
            "duration_count": len(durations),
            "duration_sum_us": sum(durations),
            "duration_max_us": max(durations, default=0),
            "histogram_index": buckets,
            "histogram_count": [sum(bucket_of(d) == b for d in durations) for b in buckets],
            "context_fill_count": len(fills),
            "context_fill_sum": sum(fills),
        }
    return sums


some_events = st.lists(
    st.builds(
        lambda i, kind, ts, agent, operation, duration, cost, tokens, limit, status: (
            decision if kind == "DECISION" else lambda ts, **f: event(kind, ts, "s", **f)
        )(
            T0 + ts * 100 * MS,
            trace=hex_id(str(i % 3), 32),
            event_id=hex_id(str(i), 32),
            agent=agent,
            operation=operation,
            duration_us=duration,
            cost_micro_usd=cost,
            input_tokens=tokens,
            context_tokens=tokens,
            context_limit=limit,
            status=status,
        ),
        st.integers(0, 40),
        st.sampled_from(["MODEL_CALL", "TOOL_CALL", "DECISION", "AGENT", "END"]),
        st.integers(0, 280),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, "x", "y"]),
        st.none() | st.integers(0, 10**6),
        st.none() | st.integers(0, 1000),
        st.none() | st.integers(0, 1000),
        st.none() | st.integers(0, 1000),
        st.sampled_from(["OK", "ERROR", "CANCELLED"]),
    ),
    max_size=60,
    unique_by=lambda one: one["event_id"],
)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(some_events, st.data())
def test_totals_equal_a_naive_recomputation(events: list[dict[str, Any]], data: st.DataObject) -> None:
    arrivals = [*events, *data.draw(st.lists(st.sampled_from(events), max_size=5))] if events else []
    stage, out = run(data.draw(st.permutations(arrivals)), lateness_us=30 * S)
    out.rollups += feed(stage, [tick(T0 + 1000 * S)]).rollups
    expected = naive(events)
    held = latest(out.rollups)
    assert {key for key, rollup in held.items() if rollup["events"]} == set(expected)
    for key, sums in expected.items():
        rollup = held[key]
        assert rollup["closed"]
        fill = sums.pop("context_fill_sum")
        assert abs(rollup["context_fill_sum"] - fill) <= 1e-9 * max(1.0, fill)
        assert {name: rollup[name] for name in sums} == sums
    assert stage.open_windows == 0
    assert out.counters["rollup_too_late"] == 0


def test_emits_changed_windows_once_a_second_of_event_time() -> None:
    stage, out = run([event("AGENT", T0, "a")])
    assert [r["events"] for r in out.rollups] == [1]
    assert feed(stage, [event("AGENT", T0 + 400 * MS, "b"), event("AGENT", T0 + 900 * MS, "c")]).rollups == []
    (rollup,) = feed(stage, [tick(T0 + 1001 * MS)]).rollups
    assert (rollup["events"], rollup["version"], rollup["closed"]) == (3, 4, False)
    assert (rollup["source_partition"], rollup["source_offset"], rollup["seq"]) == (3, 3, 0)
    assert feed(stage, [tick(T0 + 2001 * MS)]).rollups == []


def test_emits_less_often_when_told_so() -> None:
    stage, out = run([event("AGENT", T0, "a")], emit_us=3 * S)
    first = T0 - T0 % (3 * S) + 3 * S
    assert [r["events"] for r in out.rollups] == [1]
    assert feed(stage, [event("AGENT", first - MS, "b")]).rollups == []
    assert not stage.needs_tick(first - 1)
    assert stage.needs_tick(first)
    assert [r["events"] for r in feed(stage, [tick(first)]).rollups] == [2]
    assert not stage.needs_tick(first + 5 * S)


def test_late_events_correct_the_window_until_it_closes() -> None:
    stage, _ = run([event("AGENT", T0, "a"), event("AGENT", T0 + 15 * S, "b")], lateness_us=5 * S)
    out = feed(stage, [event("AGENT", T0 + S, "c"), tick(T0 + 17 * S)])
    assert out.counters["rollup_late"] == 1
    assert [(r["events"], r["late"], r["closed"]) for r in out.rollups] == [(2, 1, False)]
    out = feed(stage, [tick(T0 + 20 * S - 1), tick(T0 + 20 * S)])
    assert [(r["events"], r["closed"]) for r in out.rollups] == [(2, True)]
    out = feed(stage, [event("AGENT", T0 + S, "d"), tick(T0 + 25 * S)])
    assert out.counters["rollup_too_late"] == 1
    assert out.rollups == []


def test_rewards_are_counted_in_the_window_in_which_they_close() -> None:
    events = [decision(T0, operation="route"), event("END", T0 + S), feedback(T0 + 12 * S, 0.5)]
    _, out = run(events, settle_at=T0 + 13 * S)
    held = latest(out.rollups)
    rollup = held[(T0 + 10 * S, "default", "agent", "p", ARM, "route", "DECISION")]
    assert (rollup["rewards"], rollup["quality_count"], rollup["quality_sum"]) == (1, 1, 0.5)
    assert rollup["utility_sum"] == out.rewards[0]["utility"]
    assert rollup["events"] == 0
    assert (out.rewards[0]["seq"], out.rewards[0]["source_offset"]) == (0, 3)
    assert [r["seq"] for r in out.rollups if r["source_offset"] == 3] == [1]


def test_names_made_up_without_end_go_to_one_key() -> None:
    many = [event("TOOL_CALL", T0, f"t{i}", operation=f"op{i}") for i in range(50)]
    stage, out = run(many, settle_at=T0 + 2 * S, max_keys_per_window=10)
    assert stage.open_windows == 11
    assert out.counters["rollup_overflow"] == 40
    others = [r for r in latest(out.rollups).values() if r["operation"] == "__other__"]
    assert [(r["events"], r["agent"], r["kind"]) for r in others] == [(40, "__other__", "TOOL_CALL")]


def test_sums_stay_within_an_avro_long() -> None:
    window = Window()
    window.cost_micro_usd = 2**70
    key = WindowKey("default", "agent", "", "", "", "MODEL_CALL")
    assert window.record(T0, W, key, 1, closed=False)["cost_micro_usd"] == 2**63 - 1


def test_a_window_newer_than_the_marker_is_not_emitted_under_the_version_of_older_sums() -> None:
    events = [event("TOOL_CALL", T0 + i * 100 * MS, f"w{i}", trace=hex_id(f"{i}", 32)) for i in range(3)]
    whole = TraceStage(POLICIES, 3, StageSettings())
    feed(whole, events)
    # The checkpoint is cut off behind the windows: no marker, and the log is read from its beginning again.
    windows = {key: value for key, value in whole.dump_dirty().items() if key.startswith("window:") and value}
    again = TraceStage(POLICIES, 3, StageSettings())
    again.restore(windows.items())
    assert feed(again, events).rollups == []
    [rollup] = [r for r in feed(again, [tick(T0 + 2 * S)]).rollups if r["kind"] == "TOOL_CALL"]
    assert (rollup["events"], rollup["version"]) == (3, 4)
