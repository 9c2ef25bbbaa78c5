"""Records of a flat Avro schema, decoded a field at a time for all records at once.

The records lie one behind the other, and each row has a position of its own. A step reads one field of every row and
moves the positions on. Whatever is not plainly right (a union index other than 0 and 1, an array in several blocks, a
number of more than 64 bits, text that is no UTF-8, a number that is not finite, bytes left over) makes a row *doubtful*:
somebody else has to look at it record by record. So rows that are not doubtful are exactly what
`steersman.codec.Codec.decode` makes of them (the codec caps texts and arrays besides), and doubtful ones may be good or bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from columns.arrays import ITEMS, read_lists
from columns.block import Block
from columns.column import Bools, Column, Longs, Numbers, Texts
from columns.cursor import ALL, DOUBTFUL, Cursor
from columns.text import check_texts

_MAX_SYMBOLS: Final = 64  # their numbers take one byte
_DTYPES: Final = {"long": "<i8", "int": "<i4", "double": "<f8", "float": "<f4", "boolean": "?", "enum": "<i8"}


class ColumnReader:
    """Reads records written by one schema.

    Parameters
    ----------
    schema : mapping
        A record whose fields are strings, longs, ints, doubles, floats, booleans, enums of up to 64 symbols, unions of null
        with one of these (null first), or arrays of numbers. Logical types are read as what they are made of.

    Raises
    ------
    ValueError
        For any other schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._steps: list[tuple[str, Callable[[Cursor], Column]]] = [
            (field["name"], _step(field["name"], field["type"])) for field in schema["fields"]
        ]
        self._nothing = [_nothing(field["type"]) for field in schema["fields"]]
        # How many fields from each on may be null.
        self._nullable = [0] * (len(self._steps) + 1)
        for at in reversed(range(len(self._steps))):
            self._nullable[at] = 0 if self._nothing[at] is None else self._nullable[at + 1] + 1

    def read(self, values: Sequence[bytes], starts: Longs) -> Block:
        """Decode records; nothing is raised, whatever the bytes.

        Parameters
        ----------
        values : sequence of bytes
            Records, each behind its head; at least one.
        starts : ndarray of int64, shape (rows,)
            First byte of the body in each value, of few different numbers; unit: bytes.
        """
        cursor = Cursor(values, starts, len(self._steps))
        columns: dict[str, Column] = {}
        nulls = 0  # fields from this one on that are null in all rows
        for at, (name, step) in enumerate(self._steps):
            nothing = self._nothing[at]
            if nothing is None:
                columns[name] = step(cursor)
                continue
            if nulls == 0:
                nulls = cursor.pass_zeros(self._nullable[at]) + 1
            nulls -= 1
            columns[name] = nothing(cursor) if nulls else step(cursor)
        cursor.sure &= cursor.pos == cursor.end
        check_texts(cursor, (column for column in columns.values() if isinstance(column, Texts)))
        return Block(cursor.raw, cursor.rest, cursor.sure, columns)


Read = Callable[[Cursor, Longs | slice], NDArray[Any]]
"""Reads a field of some rows and moves them on."""


def _step(name: str, kind: Any) -> Callable[[Cursor], Column]:
    nullable = isinstance(kind, list)
    if nullable:
        if len(kind) != 2 or kind[0] != "null":
            raise ValueError(f"field {name}: only unions of null and one other type are read by columns, not {kind}")
        kind = kind[1]
    symbols: Sequence[str] = ()
    if isinstance(kind, Mapping):
        if kind["type"] == "array" and not nullable and kind["items"] in tuple(ITEMS):
            return lambda cursor: read_lists(cursor, kind["items"])
        if kind["type"] == "enum" and len(kind["symbols"]) <= _MAX_SYMBOLS:
            symbols = tuple(kind["symbols"])
        elif "logicalType" not in kind:
            raise ValueError(f"field {name}: {kind} is not read by columns")
        kind = kind["type"]
    if kind == "string":
        return lambda cursor: _texts(cursor, nullable)
    reads: dict[Any, Read] = {
        "long": _read_long,
        "int": _read_int,
        "double": lambda cursor, rows: _read_floats(cursor, rows, "<f8"),
        "float": lambda cursor, rows: _read_floats(cursor, rows, "<f4"),
        "boolean": _read_boolean,
        "enum": lambda cursor, rows: _read_symbol(cursor, rows, len(symbols)),
    }
    if not isinstance(kind, str) or kind not in reads:
        raise ValueError(f"field {name}: {kind} is not read by columns")
    return lambda cursor: _numbers(cursor, nullable, _DTYPES[kind], reads[kind], symbols)


def _nothing(kind: Any) -> Callable[[Cursor], Column] | None:
    """Makes the column of a field that is null in all rows; None where it cannot be null. The kind has passed `_step`."""
    if not isinstance(kind, list):
        return None
    kind = kind[1]
    symbols = tuple(kind.get("symbols", ())) if isinstance(kind, Mapping) else ()
    if isinstance(kind, Mapping):
        kind = kind["type"]
    if kind == "string":
        return lambda cursor: Texts(cursor.raw, cursor.zeros("<i8"), cursor.zeros("<i8"), cursor.zeros("?"))
    dtype = _DTYPES[kind]
    return lambda cursor: Numbers(cursor.zeros(dtype), cursor.zeros("?"), symbols)


def _texts(cursor: Cursor, nullable: bool) -> Texts:
    present, rows = _present(cursor, nullable)
    if isinstance(rows, slice):
        return Texts(cursor.raw, *_read_text(cursor, rows), present)
    start, size = np.zeros(len(cursor.pos), np.int64), np.zeros(len(cursor.pos), np.int64)
    if len(rows):
        start[rows], size[rows] = _read_text(cursor, rows)
    return Texts(cursor.raw, start, size, present)


def _numbers(cursor: Cursor, nullable: bool, dtype: str, read: Read, symbols: Sequence[str]) -> Numbers:
    present, rows = _present(cursor, nullable)
    if isinstance(rows, slice):
        return Numbers(read(cursor, rows), present, symbols)
    values = np.zeros(len(cursor.pos), dtype)
    if len(rows):
        values[rows] = read(cursor, rows)
    return Numbers(values, present, symbols)


def _present(cursor: Cursor, nullable: bool) -> tuple[Bools | None, Longs | slice]:
    """Rows that have a value, as a mask (None where the field cannot be null) and as numbers."""
    if not nullable:
        return None, ALL
    present = _union(cursor)
    rows: Longs = present.nonzero()[0]
    return present, ALL if len(rows) == len(present) else rows


def _union(cursor: Cursor) -> Bools:
    """Read union indices of one byte; True for the second branch."""
    index = cursor.bytes[cursor.pos]
    if not np.count_nonzero(index):
        cursor.move(ALL, cursor.pos + 1)
        return cursor.zeros("?")
    cursor.move(ALL, np.where((index == 0) | (index == 2), cursor.pos + 1, DOUBTFUL))
    present: Bools = (index == 2) & cursor.sure
    return present


def _read_text(cursor: Cursor, rows: Longs | slice) -> tuple[Longs, Longs]:
    size, start = cursor.lengths(cursor.pos[rows])
    bad = cursor.move(rows, start + size)
    if bad is not None:
        start, size = np.where(bad, cursor.rest, start), np.where(bad, 0, size)
    return start, size


def _read_long(cursor: Cursor, rows: Longs | slice) -> Longs:
    values, to = cursor.longs(cursor.pos[rows])
    cursor.move(rows, to)
    return values


def _read_int(cursor: Cursor, rows: Longs | slice) -> NDArray[np.int32]:
    values, to = cursor.longs(cursor.pos[rows])
    narrow = values.astype(np.int32)
    cursor.move(rows, np.where(narrow == values, to, DOUBTFUL))
    return narrow


def _read_floats(cursor: Cursor, rows: Longs | slice, dtype: str) -> NDArray[Any]:
    at = cursor.pos[rows]
    values = cursor.floats(at, dtype)
    cursor.move(rows, np.where(np.isfinite(values), at + values.itemsize, DOUBTFUL))
    return values


def _read_boolean(cursor: Cursor, rows: Longs | slice) -> Bools:
    at = cursor.pos[rows]
    value = cursor.bytes[at]
    cursor.move(rows, np.where(value <= 1, at + 1, DOUBTFUL))
    true: Bools = value == 1
    return true


def _read_symbol(cursor: Cursor, rows: Longs | slice, count: int) -> Longs:
    at = cursor.pos[rows]
    value = cursor.bytes[at]
    fine = (value < 2 * count) & (value & 1 == 0)
    cursor.move(rows, np.where(fine, at + 1, DOUBTFUL))
    return np.where(fine, value >> 1, 0).astype(np.int64)
