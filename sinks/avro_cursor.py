"""Places in many encoded Avro records at once: one value of each is read at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinks.native import Longs, Mask, ranges

_PAD = bytes(16)
"""Behind the last record, so that a number may be read anywhere before its end."""


class Cursor:
    """Where each record is read, and whether it still is what it should be.

    Parameters
    ----------
    values
        Kafka values.
    starts : ndarray, shape (n,), int64
        First byte of the body in each value; unit: bytes.
    """

    def __init__(self, values: Sequence[bytes], starts: Longs):
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        self.bytes: NDArray[np.uint8] = np.frombuffer(b"".join((*values, _PAD)), np.uint8)
        self.end: Longs = np.cumsum(sizes)
        self.pos: Longs = self.end - sizes + starts
        self.good: Mask = np.ones(len(values), np.bool_)
        self.all: Longs = np.arange(len(values))

    def mark(self, rows: Longs, wrong: Mask) -> None:
        """Mark those of the rows at which something is wrong."""
        if wrong.any():
            self.good[rows[wrong]] = False

    def step(self, rows: Longs, size: Any) -> None:
        """Move on; no record can be read beyond its end."""
        moved = self.pos[rows] + size
        end = self.end[rows]
        self.mark(rows, moved > end)
        self.pos[rows] = np.minimum(moved, end)

    def octets(self, rows: Longs, most: int) -> NDArray[np.uint8]:
        """Read a byte whose zigzag number is 0 to `most` (below 64); others are marked and read as 0."""
        read = self.bytes[self.pos[rows]]
        wrong = (read > 2 * most) | (read & 1).astype(np.bool_)
        self.step(rows, 1)
        if wrong.any():
            self.mark(rows, wrong)
            read = np.where(wrong, 0, read).astype(np.uint8)
        return (read >> 1).astype(np.uint8, copy=False)

    def flags(self, rows: Longs) -> NDArray[np.uint8]:
        """Read booleans of one byte, 0 or 1; others are marked."""
        read = self.bytes[self.pos[rows]]
        self.step(rows, 1)
        self.mark(rows, read > 1)
        return read

    def floats(self, rows: Longs, dtype: str) -> NDArray[Any]:
        """Read finite floats; others are marked."""
        read: NDArray[Any] = self.view(dtype)[self.pos[rows]]
        self.step(rows, read.itemsize)
        self.mark(rows, ~np.isfinite(read))
        return read

    def integers(self, rows: Longs, kind: str) -> Longs:
        """Read an `int` or a `long`; an int of more than 32 bits is marked."""
        read = self.numbers(rows)
        if kind == "int":
            self.mark(rows, narrowed(read))
        return read

    def numbers(self, rows: Longs) -> Longs:
        """Read zigzag numbers of up to ten bytes."""
        at = self.pos[rows]
        read = self.bytes[at]
        raw = (read & 0x7F).astype(np.uint64)
        size = np.ones(len(rows), np.int64)
        left = np.flatnonzero(read > 0x7F)
        for k in range(1, 10):
            if not len(left):
                break
            read = self.bytes[at[left] + k]
            raw[left] |= (read & 0x7F).astype(np.uint64) << np.uint64(7 * k)
            size[left] += 1
            if k == 9:
                self.mark(rows[left], read > 1)  # more than 64 bits
            left = left[read > 0x7F]
        self.step(rows, size)
        return unzigzag(raw)

    def lists(self, rows: Longs, counts: Longs) -> Longs:
        """Read so many zigzag numbers of each row, one after the other; counts of rows that hold fewer become 0."""
        at = self.pos[rows]
        sizes = np.minimum(self.end[rows] - at, 10 * counts)
        taken = self.bytes[ranges(at, sizes)]
        first_of_row = np.cumsum(sizes) - sizes
        last_bytes = np.flatnonzero(taken < 0x80)
        before = np.searchsorted(last_bytes, first_of_row)
        short = np.searchsorted(last_bytes, first_of_row + sizes) - before < counts
        self.mark(rows, short)
        counts[short] = 0
        has = counts > 0
        last = last_bytes[ranges(before, counts)]
        heads = (np.cumsum(counts) - counts)[has]
        first = np.empty_like(last)
        first[1:] = last[:-1] + 1
        first[heads] = first_of_row[has]
        size = last - first + 1
        raw = np.zeros(len(last), np.uint64)
        left = np.arange(len(last))
        for k in range(10):
            left = left[size[left] > k]
            if not len(left):
                break
            raw[left] |= (taken[first[left] + k] & 0x7F).astype(np.uint64) << np.uint64(7 * k)
        too_long = (size > 10) | ((size == 10) & (taken[last] > 1))
        if too_long.any():
            self.mark(np.repeat(rows, counts), too_long)
        used = np.zeros(len(rows), np.int64)
        used[has] = last[heads + counts[has] - 1] + 1 - first_of_row[has]
        self.step(rows, used)
        return unzigzag(raw)

    def view(self, dtype: str) -> NDArray[Any]:
        """Every place of the bytes as the beginning of a number."""
        size = np.dtype(dtype).itemsize
        return np.ndarray((len(self.bytes) - size + 1,), dtype, self.bytes, strides=(1,))


def narrowed(values: Longs) -> Mask:
    """Tell which numbers are none of 32 bits."""
    wide: Mask = values != values.astype(np.int32)
    return wide


def unzigzag(raw: NDArray[np.uint64]) -> Longs:
    """Undo Avro's zigzag coding."""
    return (raw >> np.uint64(1)).view(np.int64) ^ -(raw & np.uint64(1)).view(np.int64)
