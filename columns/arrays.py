"""Arrays of numbers of all rows at once, in one block each, as all encoders but blocking ones write them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from columns.column import Lists, Longs
from columns.cursor import ALL, DOUBTFUL, Cursor, ranges

ITEMS: Final = {"float": "<f4", "double": "<f8", "int": "<i4", "long": "<i8"}
"""Types of items that are read, and what they become."""


def read_lists(cursor: Cursor, items: str) -> Lists:
    """Read an array of every row."""
    counts, to = cursor.lengths(cursor.pos)
    bad = cursor.move(ALL, to)
    if bad is not None:
        counts = np.where(bad, 0, counts)
    rows = np.flatnonzero(counts)
    offsets = np.zeros(len(counts) + 1, np.int64)
    if not len(rows):
        return Lists(np.zeros(0, ITEMS[items]), offsets)
    read = _floats if items in ("float", "double") else _ints
    values, counts[rows] = read(cursor, rows, counts[rows], ITEMS[items])
    np.cumsum(counts, out=offsets[1:])
    return Lists(values, offsets)


def _floats(cursor: Cursor, rows: Longs, counts: Longs, dtype: str) -> tuple[NDArray[Any], Longs]:
    size = np.dtype(dtype).itemsize
    start = cursor.pos[rows]
    _close(cursor, rows, start + size * counts)
    # Only now are the counts of rows that go on known to be possible.
    counts = np.where(cursor.sure[rows], counts, 0)
    values = cursor.floats(ranges(start, counts, size), dtype)
    finite = np.isfinite(values)
    if not finite.all():
        cursor.give_up(np.repeat(rows, counts)[~finite])
    return values, counts


def _ints(cursor: Cursor, rows: Longs, counts: Longs, dtype: str) -> tuple[NDArray[Any], Longs]:
    start = cursor.pos[rows]
    sizes = np.minimum(cursor.end[rows] - start, 10 * counts)
    places = ranges(start, sizes)
    last = places[cursor.bytes[places] < 0x80]  # last bytes of numbers, of this array or behind it
    before = np.searchsorted(last, start)
    counts = np.where(np.searchsorted(last, start + sizes) - before < counts, 0, counts)
    cursor.give_up(rows[counts == 0])
    rows, start, before, held = (part[counts > 0] for part in (rows, start, before, counts))
    last = last[ranges(before, held)]
    first = np.empty_like(last)
    first[1:] = last[:-1] + 1
    ends = np.cumsum(held)
    first[ends - held] = start
    values, to = cursor.longs(first)
    odd = to != last + 1
    narrow = values.astype(dtype, copy=False)
    if narrow is not values:
        odd |= narrow != values
    if odd.any():
        cursor.give_up(np.repeat(rows, held)[odd])
    fine = cursor.sure[rows]
    _close(cursor, rows[fine], last[ends[fine] - 1] + 1)
    return narrow, counts


def _close(cursor: Cursor, rows: Longs, at: Longs) -> None:
    """Read the empty block behind the items; any other is doubtful."""
    cursor.move(rows, at)
    at = cursor.pos[rows]
    cursor.move(rows, np.where(cursor.bytes[at] == 0, at + 1, DOUBTFUL))
