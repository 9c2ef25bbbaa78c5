"""Places in many encoded Avro records at once: one value of each is read at a time.

A row that cannot be read goes on reading zeros behind the last record and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from columns.column import Bools, Longs

DOUBTFUL: Final = 1 << 60
"""A place beyond any end; a length or a count added to it leaves it there."""
ALL: Final = slice(None)
"""All rows."""

_STOPS: Final = np.uint64(0x8080808080808080)
_SEVENS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_FOLDS: Final = tuple(
    (np.uint64(low), np.uint64(high), np.uint64(shift))
    for low, high, shift in (
        (0x007F007F007F007F, 0x7F007F007F007F00, 1),
        (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
        (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4),
    )
)
_ONE: Final = np.uint64(1)


class Cursor:
    """Where each row is read, and whether it still is beyond doubt.

    Parameters
    ----------
    values : sequence of bytes
        Records, one per row, each behind its head.
    starts : ndarray of int64, shape (rows,)
        First byte of the body in each value, of few different numbers; unit: bytes.
    fields : int
        How many values are read of each row.

    Attributes
    ----------
    raw : bytes
        The values one behind the other, and zeros.
    bytes : ndarray of uint8
        The same.
    rest : int
        Where the zeros begin.
    bounds : ndarray of int64, shape (rows + 1,)
        Where each value begins; at last, where they end.
    pos, end : ndarray of int64, shape (rows,)
        Next byte of each row, and how far it may go.
    sure : ndarray of bool, shape (rows,)
        False for rows that are doubtful.
    high : int
        Bytes above 127 passed so far that belong to heads and numbers. It counts only while all rows are sure.
    """

    def __init__(self, values: Sequence[bytes], starts: Longs, fields: int) -> None:
        # A field of zeros takes eight bytes at most, and a number is loaded with up to nine more.
        pad = 9 * fields + 64
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        self.raw = b"".join((*values, bytes(pad)))
        self.bytes: NDArray[np.uint8] = np.frombuffer(self.raw, np.uint8)
        self._words = self.view("<u8")
        self.bounds: Longs = np.zeros(len(values) + 1, np.int64)
        np.cumsum(sizes, out=self.bounds[1:])
        self.end: Longs = self.bounds[1:].copy()
        self.pos: Longs = self.bounds[:-1] + starts
        self.rest = len(self.raw) - pad
        self.sure: Bools = np.ones(len(values), np.bool_)
        self.high = 0
        self._pass_heads(starts)

    def _pass_heads(self, starts: Longs) -> None:
        for width in np.flatnonzero(np.bincount(starts)).tolist():
            if width:
                heads = self.bounds[:-1][starts == width]
                self.high += int(np.count_nonzero(self.view(f"V{width}")[heads].view(np.uint8) & 0x80))

    def view(self, dtype: str) -> NDArray[Any]:
        """Every place of the bytes as the beginning of a value."""
        size = np.dtype(dtype).itemsize
        return np.ndarray((len(self.raw) - size + 1,), dtype, self.raw, strides=(1,))

    def zeros(self, dtype: str) -> NDArray[Any]:
        """A zero for each row."""
        return np.zeros(len(self.pos), dtype)

    def pass_zeros(self, most: int) -> int:
        """Go on over the bytes that are zero in all rows, eight and `most` at most; returns how many."""
        if most < 2:
            return 0  # one byte is looked at faster by itself
        found = int(np.bitwise_or.reduce(self._words[self.pos]))
        count = min(most, 8 if not found else ((found & -found).bit_length() - 1) // 8)
        if count:
            self.move(ALL, self.pos + count)
        return count

    def move(self, rows: Longs | slice, to: Longs) -> Bools | None:
        """Go on to places; rows that end before are doubtful from now on, and are returned (None for none)."""
        bad: Bools = to > self.end[rows]
        if not np.count_nonzero(bad):  # a tenth of the time of any(), which is written in Python
            self.pos[rows] = to
            return None
        self.pos[rows] = np.where(bad, self.rest, to)
        self.give_up(np.flatnonzero(bad) if isinstance(rows, slice) else rows[bad])
        return bad

    def give_up(self, rows: Longs) -> None:
        """Make rows doubtful: they read zeros from now on."""
        self.sure[rows] = False
        self.pos[rows] = self.rest
        self.end[rows] = len(self.raw)

    def floats(self, at: Longs, dtype: str) -> NDArray[Any]:
        """Floats of four or eight bytes that begin at places."""
        size = np.dtype(dtype).itemsize
        words = self.view(f"<u{size}")[at]
        self.high += int(np.bitwise_count(words & words.dtype.type(int(_STOPS) >> (64 - 8 * size))).sum())
        return words.view(dtype)

    def longs(self, at: Longs) -> tuple[Longs, Longs]:
        """Zigzag numbers that begin at places, and the places behind them; `DOUBTFUL` for more than 64 bits."""
        first = self.bytes[at]
        if not np.count_nonzero(first & 0x80):
            return _unzigzag(first.astype(np.uint64)), at + 1
        coded, sizes, long = self._eight(at)
        if len(long):
            low, top = self.bytes[at[long] + 8], self.bytes[at[long] + 9]
            nine = low < 0x80
            coded[long] |= (low & 0x7F).astype(np.uint64) << np.uint64(56)
            coded[long] |= np.where(nine, 0, top & 1).astype(np.uint64) << np.uint64(63)
            sizes[long] = np.where(nine, 9, np.where(top <= 1, 10, DOUBTFUL))
        return _unzigzag(coded), at + sizes

    def lengths(self, at: Longs) -> tuple[Longs, Longs]:
        """As `longs`, of numbers that are lengths; `DOUBTFUL` for negative ones and those of more than eight bytes."""
        first = self.bytes[at]
        if not np.count_nonzero(first & 0x81):
            return (first >> 1).astype(np.int64), at + 1
        coded, sizes, long = self._eight(at)
        sizes[long] = DOUBTFUL
        negative = (coded & _ONE) != 0
        if negative.any():
            sizes[negative] = DOUBTFUL
        return (coded >> _ONE).view(np.int64), at + sizes

    def _eight(self, at: Longs) -> tuple[NDArray[np.uint64], Longs, Longs]:
        """Bits of numbers of up to eight bytes, their sizes, and which of them are longer."""
        word = self._words[at]
        stops = ~word & _STOPS
        last = stops & -stops  # the bit that is not set in the last byte
        coded = word & ((last << _ONE) - _ONE) & _SEVENS
        for low, high, shift in _FOLDS:
            coded = (coded & low) | ((coded & high) >> shift)
        sizes = (np.bitwise_count(last - _ONE).astype(np.int64) + 1) >> 3
        long = np.flatnonzero(last == 0)
        if len(long):
            sizes[long] = 9 + (self.bytes[at[long] + 8] >> 7)
        self.high += int(sizes.sum()) - len(sizes)
        return coded, sizes, long


def ranges(starts: Longs, sizes: Longs, step: int = 1) -> Longs:
    """Places of all items of many ranges, one range behind the other.

    Parameters
    ----------
    starts, sizes : ndarray of int64, shape (n,)
        First place and number of items of each range.
    step
        From one item to the next.
    """
    ends = np.cumsum(sizes)
    inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    places: Longs = np.repeat(starts, sizes) + inside * step
    return places


def _unzigzag(coded: NDArray[np.uint64]) -> Longs:
    return (coded >> _ONE).view(np.int64) ^ -(coded & _ONE).view(np.int64)
