"""The counting stage of our own worker: repeats after a restart change no count."""

from __future__ import annotations

import json
from collections.abc import Iterable

from benchmarks.counting_job import PARTITIONS, compare, expected_counts, make_events
from benchmarks.counting_worker import CountingStage
from streams.edges import Event, Step


def events_of(partition: int, seed: int = 5, count: int = 2000) -> list[Event]:
    records = [event.record for event in make_events(seed, count) if event.partition == partition]
    return [(offset, 0, record) for offset, record in enumerate(records)]


def put_out(steps: Iterable[Step]) -> dict[str, tuple[int, int]]:
    counts = {}
    for step in steps:
        for record in step.records:
            assert record.key is not None
            assert record.value is not None
            events, total, _ = json.loads(record.value)
            counts[json.loads(record.key)] = events, total
    return counts


def test_counts_come_out_right() -> None:
    steps = [CountingStage("t", partition).process(events_of(partition)) for partition in range(PARTITIONS)]
    assert compare(expected_counts(5, 2000), put_out(steps)).wrong_sums == 0


def test_a_restart_with_state_newer_than_the_position_counts_nothing_twice() -> None:
    events = events_of(2)
    whole = put_out([CountingStage("t", 2).process(events)])
    first = CountingStage("t", 2)
    steps = [first.process(events[:300])]
    saved = dict(first.dump_dirty())
    assert first.dump_dirty() == {}
    second = CountingStage("t", 2)
    second.restore((key, value) for key, value in saved.items() if value is not None)
    steps.append(second.process(events[120:]))  # the marker was that of an earlier checkpoint
    assert put_out(steps) == whole
