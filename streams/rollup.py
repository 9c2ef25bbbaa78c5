"""Tumbling event-time windows per (tenant, agent, policy, arm, operation, kind).

A window is emitted, as one upsert, whenever it changed and the clock of the partition has crossed a multiple of the
interval, and once more, ``closed``, when the watermark has passed its end by the allowed lateness. Events that come after the watermark
passed the end are counted ``late`` in it; those after it closed are counted ``rollup_too_late`` and left out.
The version of an upsert is the offset of the record that caused it, plus one: it only grows, and a replay
gives every upsert its old version again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from streams.window import Window, WindowKey, load_window
from streams.window_rows import CLOSED, NOWHERE, RowSums

KEY_PREFIX: Final = "window:"
EMIT_EVERY_US: Final = 1_000_000
"""Interval unless another is asked for; unit: microseconds."""
OVERFLOW: Final = "__other__"
"""Stands for every name in windows beyond the cap on keys."""


class Rollups:
    """Open windows of one partition.

    Parameters
    ----------
    window_us : int
        Length of the windows; unit: microseconds.
    lateness_us : int
        How far the watermark is behind the clock, and how long after it a window stays open;
        unit: microseconds.
    max_keys : int
        Keys per window. Agents and operations are named by whoever writes events; the events of further keys
        go to one key per kind whose names are all ``__other__``, and are counted ``rollup_overflow``.
    counters : Counter of str
        Where to count ``rollup_late``, ``rollup_too_late``, ``rollup_overflow``.
    emit_us : int
        How often a window that changes is emitted; unit: microseconds.
    """

    def __init__(
        self,
        *,
        window_us: int,
        lateness_us: int,
        max_keys: int,
        counters: Counter[str],
        emit_us: int = EMIT_EVERY_US,
    ) -> None:
        self.window_us = window_us
        self._emit_us = emit_us
        self._lateness = lateness_us
        self._max_keys = max_keys
        self._count = counters
        self._starts: dict[int, dict[WindowKey, Window]] = {}
        self._changed: set[tuple[int, WindowKey]] = set()
        self._dirty: set[tuple[int, WindowKey]] = set()
        self._closing: dict[tuple[int, WindowKey], Window] = {}
        self._gone: set[tuple[int, WindowKey]] = set()
        self.emitted_us = 0
        """Last multiple of the interval at which windows were emitted; unit: microseconds since 1970-01-01 UTC."""
        self.closed_before_us = 0
        """Windows that start before this are closed; unit: microseconds since 1970-01-01 UTC."""
        self.rows = RowSums()
        """Sums of rows, put off until somebody looks."""

    @property
    def late_after_us(self) -> int:
        """Events are late in their window once the clock is so far past its start; unit: microseconds."""
        return self.window_us + self._lateness

    @property
    def emits_at_us(self) -> int:
        """Time of the clock from which on `advance` emits; unit: microseconds since 1970-01-01 UTC."""
        return self.emitted_us + self._emit_us

    def __len__(self) -> int:
        """Return the number of open windows."""
        return sum(map(len, self._starts.values()))

    def add_event(self, event: Mapping[str, Any], ts: int, offset: int, watermark_us: int) -> bool:
        """Count one valid event that is no repeat; False when its window had closed, and no other counts it.

        Parameters
        ----------
        event : mapping
            A validated trace event, not a TICK.
        ts : int
            Its event time, made plausible; unit: microseconds since 1970-01-01 UTC.
        offset : int
            Its Kafka offset.
        watermark_us : int
            The watermark before this event; unit: microseconds since 1970-01-01 UTC.
        """
        start = ts - ts % self.window_us
        key = WindowKey(
            event["tenant"],
            event["agent"],
            event["policy"] or "",
            event["arm"] or "",
            event["operation"] or "",
            event["kind"],
        )
        if start < self.closed_before_us:
            self._count["rollup_too_late"] += 1
            return False
        window = self._open(start, key, offset)
        if window is not None:
            late = start + self.window_us <= watermark_us
            if late:
                self._count["rollup_late"] += 1
            window.add_event(event, late=late)
        return True

    def open_row(self, number: int, start: int, key: WindowKey, offset: int) -> int:
        """Return the place in `rows` of the window of an event, where its sums are then put off.

        Parameters
        ----------
        number : int
            What rows of the same window have in common.
        start, key
            The window.
        offset : int
            Kafka offset of the event.

        Returns
        -------
        int
            `CLOSED` when the window had closed and no other counts the event, `NOWHERE` when it needs not be added.
        """
        if start < self.closed_before_us:
            self._count["rollup_too_late"] += 1
            return CLOSED
        window = self._open(start, key, offset)
        if window is None:
            return NOWHERE
        slot = self.rows.place(window)
        windows = self._starts[start]
        if len(windows) < self._max_keys or windows.get(key) is window:
            self.rows.slots[number] = slot  # not where others stand in for it: each such event is counted
        return slot

    def add_reward(self, reward: Mapping[str, Any], operation: str, offset: int) -> None:
        """Count one reward in the window of its `ts`, under its decision's key."""
        start = reward["ts"] - reward["ts"] % self.window_us
        key = WindowKey(reward["tenant"], reward["agent"], reward["policy"], reward["arm"], operation, "DECISION")
        window = self._open(start, key, offset)
        if window is not None:
            window.add_reward(reward)

    def advance(self, now_us: int, offset: int) -> list[dict[str, Any]]:
        """Emit what is due once everything that this record caused has been counted.

        Parameters
        ----------
        now_us : int
            The clock of the partition; unit: microseconds since 1970-01-01 UTC.
        offset : int
            Offset of the record that moved it.

        Returns
        -------
        list of dict
            Rollups without provenance, by (start, key); empty unless the clock has crossed a multiple of the interval.
        """
        reached = now_us - now_us % self._emit_us
        if reached <= self.emitted_us:
            return []
        self.emitted_us = reached
        self.rows.settle()
        before = now_us - 2 * self._lateness
        before -= before % self.window_us
        version = offset + 1
        if before > self.closed_before_us:
            self.closed_before_us = before
            for start in [start for start in self._starts if start < before]:
                self._changed.update((start, key) for key in self._starts[start])
        records = []
        newer = set()
        for start, key in sorted(self._changed):
            closed = start < self.closed_before_us
            window = self._starts[start][key]
            if offset < window.at and not closed:
                # Newer than the marker that a restart resumed from: emitted now, it would have the version of older sums.
                newer.add((start, key))
                continue
            window.changed = False
            records.append(window.record(start, self.window_us, key, version, closed))
            self._touch(start, key, window)
        self._changed = newer
        for start in [start for start in self._starts if start < self.closed_before_us]:
            self._closing.update(((start, key), window) for key, window in self._starts.pop(start).items())
        return records

    def next_timer(self) -> int | None:
        """Event time of the next emission or closing; None when no window is open."""
        if self._changed:
            return self.emits_at_us
        if not self._starts:
            return None
        closes = min(self._starts) + self.window_us + 2 * self._lateness
        # Closing happens at the first record of a new interval.
        return max(closes, self.emits_at_us)

    def dump_dirty(self) -> Iterator[tuple[str, bytes | None]]:
        """State changed since the last call as (key, JSON).

        A window that has closed is dumped once more, and only the call after that says that it is gone (None):
        should the first of these checkpoints be cut off, the replay still finds the window whole.
        """
        self.rows.settle()
        for start, key in sorted(self._dirty):
            window = self._closing.get((start, key)) or self._starts[start][key]
            window.dirty = False
            yield _state_key(start, key), window.dump(start, key)
        for start, key in sorted(self._gone):
            yield _state_key(start, key), None
        self._gone = set(self._closing)
        self._closing.clear()
        self._dirty.clear()

    def restore(self, data: bytes) -> None:
        """Take back one value that `dump_dirty` gave; ValueError when it is not one. `closed_before_us` must be set."""
        start, key, window = load_window(data)
        if start < self.closed_before_us:
            self._gone.add((start, key))
            return
        self._starts.setdefault(start, {})[key] = window
        if window.changed:
            self._changed.add((start, key))

    def _open(self, start: int, key: WindowKey, offset: int) -> Window | None:
        if start < self.closed_before_us:
            self._count["rollup_too_late"] += 1
            return None
        windows = self._starts.get(start)
        if windows is None:
            windows = self._starts[start] = {}
        window = windows.get(key)
        if window is None:
            if len(windows) >= self._max_keys:
                other = WindowKey(OVERFLOW, OVERFLOW, OVERFLOW, OVERFLOW, OVERFLOW, key.kind)
                if key != other:
                    self._count["rollup_overflow"] += 1
                    return self._open(start, other, offset)
            window = windows[key] = Window()
        if offset < window.at:
            return None  # the key is newer than the marker that a restart resumed from
        window.at = offset
        if not window.changed:
            window.changed = True
            self._changed.add((start, key))
        self._touch(start, key, window)
        return window

    def _touch(self, start: int, key: WindowKey, window: Window) -> None:
        """Note that a window is to be dumped."""
        if not window.dirty:
            window.dirty = True
            self._dirty.add((start, key))


def _state_key(start: int, key: WindowKey) -> str:
    digest = blake2b("\x00".join(key).encode(), digest_size=16).hexdigest()
    return f"{KEY_PREFIX}{start}:{digest}"
