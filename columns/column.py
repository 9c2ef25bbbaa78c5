"""Values of one field in many records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Texts:
    """A column of strings, as places in the bytes that were read.

    Attributes
    ----------
    raw : bytes
        The bytes.
    start, size : ndarray of int64, shape (rows,)
        Where each string begins and how long it is; size 0 for null. Unit: bytes.
    present : ndarray of bool, shape (rows,), or None
        False for null; None when the field cannot be null.
    """

    raw: bytes
    start: Longs
    size: Longs
    present: Bools | None

    def pick(self, rows: Longs) -> list[str | None]:
        """Return the values of some rows."""
        if self.present is not None and not np.count_nonzero(self.present[rows]):
            return [None] * len(rows)
        raw, start = self.raw, self.start[rows]
        places = zip(start.tolist(), (start + self.size[rows]).tolist(), strict=True)
        texts: list[str | None] = [raw[first:end].decode() for first, end in places]
        return texts if self.present is None else with_nulls(texts, self.present[rows])


@dataclass(slots=True)
class Numbers:
    """A column of longs, ints, doubles, floats, booleans or enum symbols.

    Attributes
    ----------
    values : ndarray, shape (rows,)
        int64, int32, float64, float32 or bool; codes of symbols as int64. 0 for null.
    present
        As of `Texts`.
    symbols : sequence of str
        Of an enum; empty for numbers.
    """

    values: NDArray[Any]
    present: Bools | None
    symbols: Sequence[str] = ()

    def pick(self, rows: Longs) -> list[Any]:
        """Return the values of some rows."""
        if self.present is not None and not np.count_nonzero(self.present[rows]):
            return [None] * len(rows)
        values: list[Any] = self.values[rows].tolist()
        if self.symbols:
            values = [self.symbols[code] for code in values]
        return values if self.present is None else with_nulls(values, self.present[rows])


@dataclass(slots=True)
class Lists:
    """A column of arrays of numbers.

    Attributes
    ----------
    values : ndarray
        Items of all rows, one row behind the other: int64, int32, float64 or float32.
    offsets : ndarray of int64, shape (rows + 1,)
        Where the items of each row begin; at last, where they end.
    """

    values: NDArray[Any]
    offsets: Longs

    def pick(self, rows: Longs) -> list[list[Any]]:
        """Return the values of some rows, each a list of its own."""
        items: list[Any] = self.values.tolist()
        places = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        return [items[begin:end] for begin, end in places]


Column = Texts | Numbers | Lists


def with_nulls(values: list[Any], present: Bools) -> list[Any]:
    """Return values, None where there is none."""
    if present.all():
        return values
    return [value if there else None for value, there in zip(values, present.tolist(), strict=True)]
