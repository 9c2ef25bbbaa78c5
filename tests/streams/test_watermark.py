"""The clock of a partition and implausible event times."""

from __future__ import annotations

from streams.watermark import MAX_AHEAD_US, MAX_BEHIND_US, PartitionClock
from tests.streams.trace_events import T0, S, decision, event, feed, run, tick


def test_clock_never_goes_back() -> None:
    clock = PartitionClock(30 * S)
    assert clock.advance(T0)
    assert not clock.advance(T0 - 1)
    assert not clock.advance(T0)
    assert (clock.now_us, clock.watermark_us) == (T0, T0 - 30 * S)


def test_plausible_times_stay_and_others_become_the_record_time() -> None:
    clock = PartitionClock(0)
    for ts in (T0 - MAX_BEHIND_US, T0, T0 + MAX_AHEAD_US):
        assert clock.event_time(ts, T0) == ts
    for ts in (T0 - MAX_BEHIND_US - 1, T0 + MAX_AHEAD_US + 1, 0):
        assert clock.event_time(ts, T0) == T0


def test_without_a_record_time_the_clock_is_the_reference() -> None:
    clock = PartitionClock(0)
    assert clock.event_time(5, -1) == 5
    clock.advance(T0)
    assert clock.event_time(T0 + MAX_AHEAD_US + 1, -1) == T0


def test_one_event_from_the_far_future_closes_nothing() -> None:
    stage, _ = run([decision(T0), event("MODEL_CALL", T0, "m")])
    future = T0 + 10 * 365 * 86400 * S
    out = feed(stage, [event("AGENT", future, "f"), tick(future)], record_ts=T0 + S)
    assert out.rewards == []
    assert out.counters["skewed"] == 2
    assert {rollup["window_start"] for rollup in out.rollups} == {T0}
    assert stage.clock_us == T0 + S
