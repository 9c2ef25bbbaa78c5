"""Templates: an event filled in is the event, with fresh ids that agree and the time asked for."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.avro_container import zigzag
from benchmarks.payload import EVENTS_PER_TRACE, TraceMaker
from benchmarks.templates import encoded_times, fill_in, fresh_ids, make_templates
from steersman.codec import Codec

NOW_US = 1_795_000_000_000_000


def test_events_are_those_of_the_maker_but_for_ids_and_time() -> None:
    decode = Codec("trace_event").decode
    templates = make_templates(TraceMaker(7), traces=6, at_once=4)
    assert len(templates) == 6 * EVENTS_PER_TRACE
    maker = TraceMaker(7)
    originals = [maker.trace() for _ in range(6)]
    ids = fresh_ids(2**60, 6)
    seen = [0] * 6
    for number, (template, time) in enumerate(
        zip(templates, encoded_times(np.arange(NOW_US, NOW_US + len(templates))), strict=True)
    ):
        fresh = ids[template.trace]
        key, value = fill_in(template, fresh, time)
        event = decode(value)
        original = originals[template.trace][seen[template.trace]]
        seen[template.trace] += 1
        assert key.decode() == event["trace_id"] == fresh.decode() + original["trace_id"][16:]
        assert event["event_id"] == fresh.decode() + original["event_id"][16:]
        assert event["ts"] == NOW_US + number
        if event["kind"] == "DECISION":
            assert event["decision_id"] == f"{event['trace_id']}-{event['span_id']}"
        same = event.keys() - {"trace_id", "event_id", "ts", "decision_id", "features"}
        assert {name: event[name] for name in same} == {name: original[name] for name in same}
        assert event["features"] == pytest.approx(original["features"], rel=1e-6)
    assert seen == [EVENTS_PER_TRACE] * 6


def test_so_many_traces_run_at_once() -> None:
    templates = make_templates(TraceMaker(7), traces=6, at_once=4)
    assert [t.trace for t in templates[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [t.trace for t in templates[-4:]] == [4, 5, 4, 5]


def test_times_are_encoded_as_avro_does() -> None:
    times = np.array([NOW_US, NOW_US + 1, NOW_US + 127, 300_000_000_000_000, 2**54], np.int64)
    assert encoded_times(times) == [zigzag(int(time)) for time in times]


def test_fresh_ids_are_16_digits_and_count_up() -> None:
    assert fresh_ids(255, 2) == [b"00000000000000ff", b"0000000000000100"]
