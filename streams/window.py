"""One tumbling window of one key: its sums, and their forms as rollup record and as state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from operator import attrgetter
from typing import Any, Final, NamedTuple

from streams.events import BAD_STATUSES
from streams.histogram import bucket_of
from streams.trace_state import to_json

_MAX_LONG: Final = (1 << 63) - 1


class WindowKey(NamedTuple):
    """What a window counts."""

    tenant: str
    agent: str
    policy: str
    arm: str
    operation: str
    kind: str


SUMS: Final = (
    "events",
    "errors",
    "explored",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_micro_usd",
    "unpriced",
    "duration_count",
    "duration_sum_us",
    "duration_max_us",
    "context_fill_sum",
    "context_fill_count",
    "rewards",
    "utility_sum",
    "quality_sum",
    "quality_count",
    "late",
)
"""Attributes of a window that are fields of the rollup record of the same name."""

ADDED: Final = (*SUMS[:9], "duration_count", "duration_sum_us")
"""Sums of integers over events."""

_FLOATS: Final = frozenset({"context_fill_sum", "utility_sum", "quality_sum"})
_sums_of: Final = attrgetter(*SUMS)
PRICED: Final = frozenset({"MODEL_CALL", "TOOL_CALL"})


class Window:
    """Sums over the events of one key in one window.

    Besides the sums named in `SUMS` (documented in ``rollup.avsc``):

    Attributes
    ----------
    at : int
        Kafka offset below which everything has been applied: that of the last record that changed it while that
        record may still add rewards, one more once read back.
    changed : bool
        Whether anything was applied since the window was last emitted.
    dirty : bool
        Whether it is among those that the next checkpoint dumps; derived, not part of the state.
    place : int
        Its place among the windows that are still to get sums (`streams.window_rows`), -1 for none; derived.
    histogram : dict of int to int
        Bucket of `streams.histogram` -> events.
    """

    __slots__ = ("at", "changed", "dirty", "histogram", "place", *SUMS)

    context_fill_sum: float
    utility_sum: float
    quality_sum: float

    def __init__(self) -> None:
        self.at = -1
        self.changed = False
        self.dirty = False
        self.place = -1
        self.histogram: dict[int, int] = {}
        self.events = 0
        self.errors = 0
        self.explored = 0
        self.input_tokens = 0
        self.cached_input_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0
        self.cost_micro_usd = 0
        self.unpriced = 0
        self.duration_count = 0
        self.duration_sum_us = 0
        self.duration_max_us = 0
        self.context_fill_sum = 0.0
        self.context_fill_count = 0
        self.rewards = 0
        self.utility_sum = 0.0
        self.quality_sum = 0.0
        self.quality_count = 0
        self.late = 0

    def add_event(self, event: Mapping[str, Any], *, late: bool) -> None:
        """Count one validated event; `late` when the watermark had passed the window's end."""
        self.events += 1
        if late:
            self.late += 1
        if event["status"] in BAD_STATUSES:
            self.errors += 1
        if event["explored"]:
            self.explored += 1
        duration = event["duration_us"]
        if duration is not None:
            self.duration_count += 1
            self.duration_sum_us += duration
            if duration > self.duration_max_us:
                self.duration_max_us = duration
            bucket = bucket_of(duration)
            self.histogram[bucket] = self.histogram.get(bucket, 0) + 1
        cost = event["cost_micro_usd"]
        if cost is not None:
            self.cost_micro_usd += cost
        elif event["kind"] in PRICED:
            self.unpriced += 1
        self.input_tokens += event["input_tokens"] or 0
        self.cached_input_tokens += event["cached_input_tokens"] or 0
        self.output_tokens += event["output_tokens"] or 0
        self.reasoning_tokens += event["reasoning_tokens"] or 0
        used = event["context_tokens"]
        if used is not None and event["context_limit"]:
            self.add_fill(used / event["context_limit"])

    def add_fill(self, share: float) -> None:
        """Add the share of the context window that an event used."""
        self.context_fill_sum += share
        self.context_fill_count += 1

    def add_sums(self, sums: Sequence[int], longest_us: int) -> None:
        """Add up validated events but for `late`, the histogram and the share of the context window in use.

        Parameters
        ----------
        sums
            Their sums, in the order of `ADDED`.
        longest_us
            Longest of their durations, 0 without any; unit: microseconds.
        """
        events, errors, explored, tokens, cached, written, reasoning, cost, unpriced, timed, duration = sums
        self.events += events
        self.errors += errors
        self.explored += explored
        self.input_tokens += tokens
        self.cached_input_tokens += cached
        self.output_tokens += written
        self.reasoning_tokens += reasoning
        self.cost_micro_usd += cost
        self.unpriced += unpriced
        self.duration_count += timed
        self.duration_sum_us += duration
        if longest_us > self.duration_max_us:
            self.duration_max_us = longest_us

    def add_reward(self, reward: Mapping[str, Any]) -> None:
        """Count one reward of this policy and arm."""
        self.rewards += 1
        if reward["quality"] is not None:
            self.quality_sum += reward["quality"]
            self.quality_count += 1
        if reward["utility"] is not None:
            self.utility_sum += reward["utility"]

    def record(self, start_us: int, window_us: int, key: WindowKey, version: int, closed: bool) -> dict[str, Any]:
        """Rollup record without provenance; sums beyond an Avro long are cut to its maximum."""
        buckets = sorted(self.histogram)
        record: dict[str, Any] = {
            "window_start": start_us,
            "window_us": window_us,
            "version": version,
            "closed": closed,
            "histogram_index": buckets,
            "histogram_count": [self.histogram[bucket] for bucket in buckets],
        }
        record.update(zip(key._fields, key, strict=True))
        for name, value in zip(SUMS, _sums_of(self), strict=True):
            record[name] = value if value <= _MAX_LONG or name in _FLOATS else _MAX_LONG
        return record

    def dump(self, start_us: int, key: WindowKey) -> bytes:
        """JSON form; `load_window` reads it. ValueError for a sum that is not finite."""
        sums = _sums_of(self)
        if not isfinite(self.context_fill_sum + self.utility_sum + self.quality_sum):
            raise ValueError(f"the sums of {key} are beyond what a float holds")
        return to_json([start_us, key, self.at, self.changed, sums, sorted(self.histogram.items())])


def load_window(data: bytes) -> tuple[int, WindowKey, Window]:
    """Read the JSON form of a window: its start, key and sums; ValueError when it is not one."""
    start_us, parts, at, changed, sums, histogram = json.loads(data)
    window = Window()
    window.at = at + 1
    window.changed = changed
    for name, value in zip(SUMS, sums, strict=True):
        setattr(window, name, value)
    window.histogram = dict(histogram)
    return start_us, WindowKey(*parts), window
