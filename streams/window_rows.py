"""Counting many events in their windows at once: the sums of integers are put off and added together.

Only integers, whose sums do not depend on the order; the float (`context_fill_sum`) is added event by event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from columns.block import Block
from columns.column import Bools, Longs, Numbers
from streams.events import BAD_STATUSES
from streams.histogram import BOUNDS
from streams.window import PRICED, Window

CLOSED: Final = -1
"""Place of a window that has closed."""
NOWHERE: Final = -2
"""Place of a window that has seen the row before."""
_FEW: Final = 24
"""Events that are added one by one faster than in groups."""
_MOST: Final = 50_000
"""Rows whose sums are put off at most: memory, and far fewer than would go beyond 64 bits."""
_EDGES: Final = np.array(BOUNDS)
_BUCKETS: Final = len(BOUNDS)


@dataclass(slots=True)
class WindowRows:
    """What windows add up, of each row.

    Attributes
    ----------
    sums : ndarray of int64, shape (rows, len(streams.window.ADDED))
        What `Window.add_sums` takes.
    durations : ndarray of int64, shape (rows,)
        0 without one; unit: microseconds.
    buckets : ndarray of int64, shape (rows,)
        Bucket of the histogram, -1 without a duration.
    fills : list of (float or None)
        Share of the context window in use.
    """

    sums: Longs
    durations: Longs
    buckets: Longs
    fills: list[float | None]


class RowSums:
    """Sums that windows are still to get: of many batches, for a window gets few rows of each.

    Attributes
    ----------
    slots : dict of int to int
        Number of a row's window -> its place in `windows`, for windows that are marked as changed; of the batch that is
        being taken in.
    windows : list of Window
        Windows that get something.
    rows, row_slots : list of int
        Rows of the batch that have been counted, and the places of their windows.
    """

    def __init__(self) -> None:
        self._columns: WindowRows | None = None
        self._put_off: list[tuple[Longs, Longs, Longs, Longs]] = []  # sums, durations, buckets, places of windows
        self._count = 0
        self.slots: dict[int, int] = {}
        self.windows: list[Window] = []
        self.rows: list[int] = []
        self.row_slots: list[int] = []

    def begin(self, columns: WindowRows) -> None:
        """Go on to the rows of another batch; what they add is in its columns."""
        self._columns = columns

    def end(self) -> None:
        """Put off what the rows of the batch add."""
        self._take()
        self.slots.clear()
        self._columns = None
        if self._count > _MOST:
            self.settle()

    def place(self, window: Window) -> int:
        """Return the place of a window."""
        if window.place < 0:
            window.place = len(self.windows)
            self.windows.append(window)
        return window.place

    def settle(self) -> None:
        """Give the windows what they are to get, and forget them."""
        self._take()
        if self._put_off:
            self._settle(*map(np.concatenate, zip(*self._put_off, strict=True)))
        for window in self.windows:
            window.place = -1
        for held in (self.slots, self.windows, self._put_off):
            held.clear()
        self._count = 0

    def _take(self) -> None:
        if self.rows and self._columns is not None:
            columns, row = self._columns, np.array(self.rows)
            self._put_off.append(
                (columns.sums[row], columns.durations[row], columns.buckets[row], np.array(self.row_slots))
            )
            self._count += len(row)
            self.rows.clear()
            self.row_slots.clear()

    def _settle(self, sums: Longs, durations: Longs, bucket: Longs, slot: Longs) -> None:
        windows, targets = self.windows, slot
        if len(slot) > _FEW:
            order = np.argsort(slot, kind="stable")
            targets = slot[order]
            begins = np.flatnonzero(np.diff(targets, prepend=-1))
            sums = np.add.reduceat(sums[order], begins)
            durations = np.maximum.reduceat(durations[order], begins)
            targets = targets[begins]
        for target, added, duration in zip(targets.tolist(), sums.tolist(), durations.tolist(), strict=True):
            windows[target].add_sums(added, duration)
        timed = bucket >= 0
        places, counts = np.unique(slot[timed] * _BUCKETS + bucket[timed], return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            target, number = divmod(place, _BUCKETS)
            histogram = windows[target].histogram
            histogram[number] = histogram.get(number, 0) + count


def window_rows(block: Block, sound: Bools) -> WindowRows:
    """Prepare the sums of the sound rows of a block of trace events; those of other rows mean nothing."""

    def longs(name: str) -> Longs:
        return np.where(sound, block.numbers(name).values, 0)

    def has(column: Numbers) -> Bools:
        return sound if column.present is None else column.present & sound

    status, kind, duration, cost = (block.numbers(name) for name in ("status", "kind", "duration_us", "cost_micro_usd"))
    bad = np.array([symbol in BAD_STATUSES for symbol in status.symbols])[status.values]
    priced = np.array([symbol in PRICED for symbol in kind.symbols])[kind.values]
    timed, durations = has(duration), longs("duration_us")
    sums = np.stack(
        [
            np.ones(len(sound), np.int64),
            bad,
            longs("explored"),
            longs("input_tokens"),
            longs("cached_input_tokens"),
            longs("output_tokens"),
            longs("reasoning_tokens"),
            longs("cost_micro_usd"),
            priced & ~has(cost),
            timed,
            durations,
        ],
        axis=1,
        dtype=np.int64,
    )
    buckets = np.where(durations > 1, np.searchsorted(_EDGES, durations, "right") - 1, 0)
    fills: list[float | None] = [None] * len(sound)
    used, limit = block.numbers("context_tokens"), block.numbers("context_limit")
    rows = np.flatnonzero(has(used) & has(limit) & (limit.values != 0))
    # Divided as Python's integers, as the record path does.
    for row, tokens, most in zip(rows.tolist(), used.values[rows].tolist(), limit.values[rows].tolist(), strict=True):
        fills[row] = tokens / most
    return WindowRows(sums, durations, np.where(timed, buckets, -1), fills)
