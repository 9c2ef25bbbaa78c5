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

from sinks.avro_cursor import Cursor, narrowed
from sinks.native import Column, Fixed, Lists, Longs, Mask, gathered, ranges
from steersman.record_checks import MAX_ITEMS, MAX_TEXT

_FLOATS = {"double": "<f8", "float": "<f4"}
_INTS = {"long": "<i8", "int": "<i4"}


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
