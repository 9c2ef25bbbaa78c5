"""The counting job: its events, the counts they must give, and how far counts are off."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PARTITIONS = 4
COUNTERS = 64
_TS = 1_800_000_000_000_000

Counts = Mapping[str, tuple[int, int]]
"""Counter -> (events, sum of their values)."""


@dataclass(frozen=True)
class CountedEvent:
    """One event to be counted."""

    counter: str
    partition: int
    value: int
    record: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Counts beside what they must be.

    Attributes
    ----------
    counted
        All counts together; unit: events.
    lost, doubled
        Counted too few and too many, each summed over the counters; unit: events. Within one counter the two cancel:
        `wrong_sums` shows that.
    wrong_sums
        Counters whose sum of values is not what it must be; unit: counters.
    """

    counted: int
    lost: int
    doubled: int
    wrong_sums: int


def make_events(seed: int, count: int) -> Iterator[CountedEvent]:
    """Yield seeded trace events. A counter lives in one partition."""
    rng = random.Random(seed)  # noqa: S311  (reproducible data, no secret)
    for number in range(count):
        index, value = rng.randrange(COUNTERS), rng.randrange(1, 1000)
        counter = f"c{index:02d}"
        record = {
            "event_id": f"{number:032x}",
            "trace_id": f"{number + 1:032x}",
            "span_id": "0000000000000001",
            "agent": counter,
            "kind": "FEEDBACK",
            "ts": _TS + number,
            "metric": "m",
            "value": float(value),
        }
        yield CountedEvent(counter, index % PARTITIONS, value, record)


def expected_counts(seed: int, count: int) -> dict[str, tuple[int, int]]:
    """Return the counts that `make_events` with the same arguments must give."""
    counts: dict[str, tuple[int, int]] = {}
    for event in make_events(seed, count):
        events, total = counts.get(event.counter, (0, 0))
        counts[event.counter] = events + 1, total + event.value
    return counts


def compare(expected: Counts, counted: Counts) -> Comparison:
    """Compare counts with what they must be; a counter that one of them lacks is zero there."""
    lost = doubled = wrong_sums = 0
    for counter in expected.keys() | counted.keys():
        wanted, found = expected.get(counter, (0, 0)), counted.get(counter, (0, 0))
        lost += max(0, wanted[0] - found[0])
        doubled += max(0, found[0] - wanted[0])
        wrong_sums += wanted[1] != found[1]
    return Comparison(sum(events for events, _ in counted.values()), lost, doubled, wrong_sums)
