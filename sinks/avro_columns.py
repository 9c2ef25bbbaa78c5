"""Encoded Avro records to columns, without an object for any of them.

The fields of a flat schema are read one after the other, each for all records at once. Whatever is not plainly a record as
our own encoder writes it is only marked: `steersman.codec.Codec` is the one to say what it is. So the values of a record
that is not marked are those that the codec would have found, and none of the bytes of one record can reach another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinks.native import Column, Fixed, Lists, gathered, ranges
from steersman.record_checks import MAX_ITEMS, MAX_TEXT

Longs = NDArray[np.int64]
Mask = NDArray[np.bool_]

_PAD = bytes(16)
"""Behind the last record, so that a number may be read anywhere before its end."""
_FLOATS = {"double": "<f8", "float": "<f4"}
_INTS = {"long": "<i8", "int": "<i4"}


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


@dataclass(frozen=True)
class _Field:
    """A field of a schema; `other` is the index of the symbol that makes a record none of the reader's."""

    kind: str
    nullable: bool
    is_time: bool = False
    items: str = ""
    symbols: Sequence[str] = ()
    other: int = -1


class Reader:
    """Reads records of one schema into columns.

    Parameters
    ----------
    schema : mapping
        A record of texts, numbers, booleans and enums, each of which may be null (`["null", type]`), and of arrays of
        numbers.
    times
        Range of the timestamps that are read, the last excluded; unit: microseconds since 1970 UTC.
    timeless
        A timestamp may be 0, for unknown.
    others
        Symbols, by the field of an enum, of records that are not to be read.

    Raises
    ------
    ValueError
        The schema has a field of another type.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        times: tuple[int, int],
        timeless: bool = False,
        others: Mapping[str, str] | None = None,
    ):
        self._times = times
        self._timeless = timeless
        self._fields = [_field(f["name"], f["type"], (others or {}).get(f["name"])) for f in schema["fields"]]

    def read(self, values: Sequence[bytes], starts: Longs, checked: Mask) -> tuple[list[Column], Mask]:
        """Read records.

        Parameters
        ----------
        values
            Kafka values of the records.
        starts : ndarray, shape (n,), int64
            First byte of the body in each value; unit: bytes.
        checked : ndarray, shape (n,), bool
            Records whose texts and arrays may be long, since the codec has counted them.

        Returns
        -------
        columns : list of Column
            One per field, in their order; empty unless all records are good.
        good : ndarray, shape (n,), bool
            Records that can be read. The others are for the codec.
        """
        cursor = Cursor(values, starts)
        makes = [self._read(cursor, checked, f) for f in self._fields]
        cursor.mark(cursor.all, cursor.pos != cursor.end)
        if cursor.good.all():
            columns = [make() for make in makes]
            if cursor.good.all():
                return columns, cursor.good
        return [], cursor.good

    def _read(self, cursor: Cursor, checked: Mask, f: _Field) -> Callable[[], Column]:
        """Read a field of all records; returns what makes its column."""
        rows, nulls = cursor.all, None
        if f.nullable:
            present = cursor.octets(rows, 1).astype(np.bool_)
            rows, nulls = np.flatnonzero(present), ~present
        if f.kind == "string":
            return _texts(cursor, checked, rows)
        if f.kind == "array":
            return _arrays(cursor, checked, rows, f.items)
        if f.kind == "enum":
            return _symbols(cursor, rows, f)
        found: NDArray[Any]
        if f.kind == "boolean":
            found, dtype = cursor.flags(rows), "|u1"
        elif f.kind in _FLOATS:
            dtype = _FLOATS[f.kind]
            found = cursor.floats(rows, dtype)
        else:
            dtype = _INTS[f.kind]
            found = cursor.integers(rows, f.kind)
            if f.is_time:
                wrong = (found < self._times[0]) | (found >= self._times[1])
                cursor.mark(rows, wrong & (found != 0) if self._timeless else wrong)
        if nulls is None:
            return lambda: Fixed(found.astype(dtype, copy=False))
        filled = np.zeros(len(nulls), dtype)
        filled[rows] = found
        return lambda: Fixed(filled, nulls)


def _field(name: str, node: Any, other: str | None) -> _Field:
    nullable = isinstance(node, list)
    if nullable:
        if len(node) != 2 or node[0] != "null":
            raise ValueError(f"field {name}: only ['null', type] is read, not {node}")
        node = node[1]
    if isinstance(node, str):
        kind, made = node, _Field(node, nullable)
    elif node["type"] == "enum" and len(node["symbols"]) <= 64:
        kind = "enum"
        made = _Field(kind, nullable, symbols=node["symbols"], other=node["symbols"].index(other) if other else -1)
    elif node["type"] == "array" and not nullable and node["items"] in (*_INTS, *_FLOATS):
        kind = "array"
        made = _Field(kind, nullable, items=node["items"])
    else:
        kind = node["type"] if "logicalType" in node else ""
        made = _Field(kind, nullable, is_time=node.get("logicalType") == "timestamp-micros")
    if kind not in ("string", "enum", "array", "boolean", *_INTS, *_FLOATS):
        raise ValueError(f"field {name}: {node} is not read")
    return made


def _texts(cursor: Cursor, checked: Mask, rows: Longs) -> Callable[[], Column]:
    found = cursor.numbers(rows)
    at = cursor.pos[rows]
    wrong = (found < 0) | (found > cursor.end[rows] - at) | ((found > MAX_TEXT) & ~checked[rows])
    if wrong.any():
        cursor.mark(rows, wrong)
        found[wrong] = 0
    cursor.pos[rows] = at + found
    starts, sizes = np.zeros(len(checked), np.int64), np.zeros(len(checked), np.int64)
    starts[rows], sizes[rows] = at, found

    def make() -> Column:
        column = gathered(cursor.bytes, starts, sizes)
        if not column.encoded.isascii():
            for row in column.not_ascii():
                try:
                    column.decode(row)
                except UnicodeDecodeError:
                    cursor.good[row] = False
        return column

    return make


def _arrays(cursor: Cursor, checked: Mask, rows: Longs, items: str) -> Callable[[], Column]:
    """Arrays in one block, as all encoders but blocking ones write them."""
    counts = cursor.numbers(rows)
    size = np.dtype(_FLOATS[items]).itemsize if items in _FLOATS else 1
    left = cursor.end[rows] - cursor.pos[rows]
    wrong = (counts < 0) | (counts > left // size) | ((counts > MAX_ITEMS) & ~checked)
    if wrong.any():
        cursor.mark(rows, wrong)
        counts[wrong] = 0
    some = np.flatnonzero(counts)
    values: NDArray[Any]
    if items in _FLOATS:
        values = cursor.view(_FLOATS[items])[ranges(cursor.pos[some], counts[some], size)]
        cursor.step(some, counts[some] * size)
        finite = np.isfinite(values)
        if not finite.all():
            cursor.mark(np.repeat(some, counts[some]), ~finite)
    else:
        part = counts[some]
        values = cursor.lists(some, part)
        counts[some] = part
        if items == "int":
            cursor.mark(np.repeat(some, part), narrowed(values))
        values = values.astype(_INTS[items], copy=False)
    cursor.octets(some, 0)
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return lambda: Lists(values, offsets)


def _symbols(cursor: Cursor, rows: Longs, f: _Field) -> Callable[[], Column]:
    found = cursor.octets(rows, len(f.symbols) - 1)
    if f.other >= 0:
        cursor.mark(rows, found == f.other)
    names = [symbol.encode() for symbol in f.symbols]
    lengths = np.array([len(name) for name in names], np.int64)
    source = np.frombuffer(b"".join(names), np.uint8)
    starts, sizes = np.zeros(len(cursor.all), np.int64), np.zeros(len(cursor.all), np.int64)
    starts[rows], sizes[rows] = (np.cumsum(lengths) - lengths)[found], lengths[found]
    return lambda: gathered(source, starts, sizes)


def narrowed(values: Longs) -> Mask:
    """Tell which numbers are none of 32 bits."""
    wide: Mask = values != values.astype(np.int32)
    return wide


def unzigzag(raw: NDArray[np.uint64]) -> Longs:
    """Undo Avro's zigzag coding."""
    return (raw >> np.uint64(1)).view(np.int64) ^ -(raw & np.uint64(1)).view(np.int64)
