"""Bodies of a flat Avro record, decoded a field at a time for all records at once.

The bodies lie one behind the other, and each row has a position of its own. A step reads one field of every row and moves
the positions on; a row that cannot be read goes on reading zeros behind the last body and disturbs no other. Whatever is
not plainly right (a union index other than 0 and 1, an array in several blocks, a number of nine bytes, text that is no
UTF-8, a number that is not finite, bytes left over) makes a row *doubtful*: somebody else has to look at it record by
record. So rows that are not doubtful are exactly what `steersman.codec.Codec.decode` makes of them, and doubtful ones may be
good or bad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_INTS: Final = 1024
"""Longest array of ints read by columns; longer ones are doubtful."""
_PAD: Final = 1024  # bytes of zeros behind the last body: more than a row without content takes, however many fields
_DOUBTFUL: Final = 1 << 60  # a position beyond any end
_ALL: Final = slice(None)

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


@dataclass(slots=True)
class Texts:
    """A column of strings, as places in the bodies.

    Attributes
    ----------
    raw : bytes
        The bodies.
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
        if self.present is not None and not self.present[rows].any():
            return [None] * len(rows)
        raw, start = self.raw, self.start[rows]
        places = zip(start.tolist(), (start + self.size[rows]).tolist(), strict=True)
        texts: list[str | None] = [raw[first:end].decode() for first, end in places]
        return texts if self.present is None else with_nulls(texts, self.present[rows])


@dataclass(slots=True)
class Numbers:
    """A column of longs, doubles, booleans or enum symbols.

    Attributes
    ----------
    values : ndarray, shape (rows,)
        int64, float64 or bool; codes of symbols as int64. 0 for null.
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
        if self.present is not None and not self.present[rows].any():
            return [None] * len(rows)
        values: list[Any] = self.values[rows].tolist()
        if self.symbols:
            values = [self.symbols[code] for code in values]
        return values if self.present is None else with_nulls(values, self.present[rows])


@dataclass(slots=True)
class Lists:
    """A column of arrays of floats or ints.

    Attributes
    ----------
    first, count : ndarray of int64, shape (rows,)
        Which of the items are the row's.
    items : list
        Items of all rows.
    """

    first: Longs
    count: Longs
    items: list[Any]

    def pick(self, rows: Longs) -> list[list[Any]]:
        """Return the values of some rows, each a list of its own."""
        items, first = self.items, self.first[rows]
        places = zip(first.tolist(), (first + self.count[rows]).tolist(), strict=True)
        return [items[begin:end] for begin, end in places]


Column = Texts | Numbers | Lists


def with_nulls(values: list[Any], present: Bools) -> list[Any]:
    """Return values, None where there is none."""
    if present.all():
        return values
    return [value if there else None for value, there in zip(values, present.tolist(), strict=True)]


@dataclass(slots=True)
class Block:
    """Records as columns.

    Attributes
    ----------
    raw : bytes
        The bodies, and zeros behind them.
    rest : int
        Where the zeros begin.
    sure : ndarray of bool, shape (rows,)
        False for doubtful rows; what the columns hold for them means nothing.
    columns : dict of str to Column
        By field name, in the order of the schema.
    """

    raw: bytes
    rest: int
    sure: Bools
    columns: dict[str, Column]

    def texts(self, name: str) -> Texts:
        """Return a column of strings."""
        column = self.columns[name]
        if not isinstance(column, Texts):
            raise TypeError(f"{name} is no column of strings")
        return column

    def numbers(self, name: str) -> Numbers:
        """Return a column of numbers, booleans or symbols."""
        column = self.columns[name]
        if not isinstance(column, Numbers):
            raise TypeError(f"{name} is no column of numbers")
        return column

    def records(self, rows: Longs, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return some fields of some rows as records: what `Codec.decode` gives, of rows that are sure."""
        wanted = tuple(names)
        picked = [self.columns[name].pick(rows) for name in wanted]
        return [dict(zip(wanted, values, strict=True)) for values in zip(*picked, strict=True)]


class ColumnReader:
    """Reads bodies written by one schema.

    Parameters
    ----------
    schema : mapping
        A record whose fields are strings, longs, doubles, booleans, enums, arrays of floats or ints, or unions of null
        with one of the first five (null first).

    Raises
    ------
    ValueError
        For any other schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._steps: list[tuple[str, Callable[[_Walk], Column]]] = [
            (field["name"], _step(field["name"], field["type"])) for field in schema["fields"]
        ]
        if 9 * len(self._steps) + 64 > _PAD:
            raise ValueError(f"{len(self._steps)} fields are too many to read by columns")

    def read(self, bodies: Sequence[bytes]) -> Block:
        """Decode bodies, at least one; nothing is raised, whatever the bytes."""
        walk = _Walk(bodies)
        columns = {name: step(walk) for name, step in self._steps}
        walk.sure &= walk.pos == walk.end
        _check_texts(walk, columns.values())
        return Block(walk.raw, walk.rest, walk.sure, columns)


class _Walk:
    """Positions of all rows, on their way through the fields."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
        self.raw = b"".join((*bodies, bytes(_PAD)))
        self.bytes = np.frombuffer(self.raw, np.uint8)
        self.words = self._strided("<u8", 8)
        self.end = np.cumsum(sizes)
        self.pos = self.end - sizes
        self.rest = len(self.raw) - _PAD
        self.sure = np.ones(len(bodies), np.bool_)
        self.high = 0  # bytes above 127 read so far that belong to numbers

    def _strided(self, dtype: str, size: int) -> NDArray[Any]:
        """The bodies as numbers that begin at every byte."""
        return np.ndarray((len(self.raw) - size + 1,), dtype, self.raw, strides=(1,))

    def doubles(self, at: Longs) -> NDArray[np.float64]:
        words = self.words[at]
        self.high += int(np.bitwise_count(words & _STOPS).sum())
        return words.view(np.float64)

    def singles(self, at: Longs) -> NDArray[np.float32]:
        words = self._strided("<u4", 4)[at]
        self.high += int(np.bitwise_count(words & np.uint32(_STOPS & np.uint64(0xFFFFFFFF))).sum())
        return words.view(np.float32)

    def long(self, at: Longs) -> tuple[Longs, Longs]:
        """Values of the longs that begin at places, and the places behind them; beyond any end for more than eight bytes."""
        first = self.bytes[at]
        if not (first & 0x80).any():
            small = first.astype(np.int64)
            return (small >> 1) ^ -(small & 1), at + 1
        word = self.words[at]
        stops = ~word & _STOPS
        last = stops & -stops  # the bit that is not set in the last byte
        rest = word & ((last << _ONE) - _ONE) & _SEVENS
        for low, high, shift in _FOLDS:
            rest = (rest & low) | ((rest & high) >> shift)
        values = (rest >> _ONE).view(np.int64) ^ -((rest & _ONE).view(np.int64))
        sizes = (np.bitwise_count(last - _ONE).astype(np.int64) + 1) >> 3
        self.high += int(sizes.sum()) - len(sizes)
        return values, np.where(stops == 0, _DOUBTFUL, at + sizes)

    def move(self, rows: Longs | slice, to: Longs) -> Bools | None:
        """Go on to places; rows whose body ends before are doubtful from now on, and are returned (None for none)."""
        bad: Bools = to > self.end[rows]
        if not bad.any():
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


Read = Callable[[_Walk, Longs | slice], NDArray[Any] | tuple[Longs, Longs]]
"""Reads a field of some rows and moves them on: values, or start and size of strings."""


def _step(name: str, kind: Any) -> Callable[[_Walk], Column]:
    nullable = isinstance(kind, list)
    if nullable:
        if len(kind) != 2 or kind[0] != "null":
            raise ValueError(f"field {name}: only unions of null and one other type are read by columns")
        kind = kind[1]
    symbols: Sequence[str] = ()
    if isinstance(kind, Mapping):
        if kind["type"] == "array" and not nullable and kind["items"] in ("float", "int"):
            return _floats if kind["items"] == "float" else _ints
        if kind["type"] == "enum":
            symbols = tuple(kind["symbols"])
        kind = kind["type"]
    reads: dict[Any, Read] = {
        "string": _read_text, "long": _read_long, "double": _read_double, "boolean": _read_boolean,
        "enum": lambda walk, rows: _read_symbol(walk, rows, len(symbols)),
    }  # fmt: skip
    read = reads.get(kind)
    if read is None:
        raise ValueError(f"field {name}: {kind} is not read by columns")

    def column(walk: _Walk) -> Column:
        present = _union(walk) if nullable else None
        text = kind == "string"
        found = read(walk, _ALL) if present is None else _spread(walk, read, np.flatnonzero(present), text)
        if isinstance(found, tuple):
            return Texts(walk.raw, *found, present)
        return Numbers(found, present, symbols)

    return column


def _union(walk: _Walk) -> Bools:
    """Read union indices of one byte; True for the second branch."""
    index = walk.bytes[walk.pos]
    if not index.any():
        walk.move(_ALL, walk.pos + 1)
        return np.zeros(len(index), np.bool_)
    walk.move(_ALL, np.where((index == 0) | (index == 2), walk.pos + 1, _DOUBTFUL))
    present: Bools = (index == 2) & walk.sure
    return present


def _spread(walk: _Walk, read: Read, rows: Longs, text: bool) -> NDArray[Any] | tuple[Longs, Longs]:
    """Read the rows that have a value, and leave zeros at the others."""
    if len(rows) == len(walk.pos):
        return read(walk, _ALL)
    n = len(walk.pos)
    if not len(rows):
        return (np.zeros(n, np.int64), np.zeros(n, np.int64)) if text else np.zeros(n, np.int64)
    found = read(walk, rows)
    if isinstance(found, tuple):
        start, size = np.zeros(n, np.int64), np.zeros(n, np.int64)
        start[rows], size[rows] = found
        return start, size
    values = np.zeros(n, found.dtype)
    values[rows] = found
    return values


def _read_text(walk: _Walk, rows: Longs | slice) -> tuple[Longs, Longs]:
    size, start = walk.long(walk.pos[rows])
    bad = walk.move(rows, np.where(size < 0, _DOUBTFUL, start + size))
    if bad is not None:
        start, size = np.where(bad, walk.rest, start), np.where(bad, 0, size)
    return start, size


def _check_texts(walk: _Walk, columns: Iterable[Column]) -> None:
    """Make the rows doubtful that hold a string which is no UTF-8."""
    if walk.sure.all() and np.count_nonzero(walk.bytes & 0x80) == walk.high:
        return  # every byte above 127 belongs to a number, so all strings are ASCII
    before = np.zeros(len(walk.raw) + 1, np.int32)  # bytes above 127 before each place
    np.cumsum(walk.bytes >> 7, dtype=np.int32, out=before[1:])
    for column in columns:
        if isinstance(column, Texts):
            start, end = column.start, column.start + column.size
            foreign = np.flatnonzero((before[end] != before[start]) & walk.sure)
            for row in foreign.tolist():
                walk.sure[row] = _is_utf8(walk.raw[start[row] : end[row]])


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_long(walk: _Walk, rows: Longs | slice) -> Longs:
    values, to = walk.long(walk.pos[rows])
    walk.move(rows, to)
    return values


def _read_symbol(walk: _Walk, rows: Longs | slice, count: int) -> Longs:
    codes, to = walk.long(walk.pos[rows])
    fine = (codes >= 0) & (codes < count)
    walk.move(rows, np.where(fine, to, _DOUBTFUL))
    return np.where(fine, codes, 0)


def _read_double(walk: _Walk, rows: Longs | slice) -> NDArray[np.float64]:
    at = walk.pos[rows]
    values = walk.doubles(at)
    walk.move(rows, np.where(np.isfinite(values), at + 8, _DOUBTFUL))
    return values


def _read_boolean(walk: _Walk, rows: Longs | slice) -> Bools:
    at = walk.pos[rows]
    value = walk.bytes[at]
    walk.move(rows, np.where(value <= 1, at + 1, _DOUBTFUL))
    true: Bools = value == 1
    return true


def _counts(walk: _Walk) -> tuple[Longs, Longs]:
    """Read the item counts of arrays; returns them and the rows that have items, at which these begin."""
    count, to = walk.long(walk.pos)
    bad = walk.move(_ALL, np.where(count < 0, _DOUBTFUL, to))
    if bad is not None:
        count = np.where(bad, 0, count)
    return count, np.flatnonzero(count)


def _close(walk: _Walk, rows: Longs, at: Longs) -> None:
    """Read the empty block behind the items of arrays; any other is doubtful."""
    walk.move(rows, at)
    at = walk.pos[rows]
    walk.move(rows, np.where(walk.bytes[at] == 0, at + 1, _DOUBTFUL))


def _floats(walk: _Walk) -> Lists:
    count, rows = _counts(walk)
    first = np.zeros(len(count), np.int64)
    if not len(rows):
        return Lists(first, count, [])
    start, many = walk.pos[rows], count[rows]
    _close(walk, rows, start + 4 * many)
    # Only now are the counts of rows that go on known to be possible.
    sure = walk.sure[rows]
    many = np.where(sure, many, 0)
    count[rows] = many
    first[rows] = np.cumsum(many) - many
    each = np.repeat(start - 4 * first[rows], many) + 4 * np.arange(int(many.sum()))
    values = walk.singles(each)
    finite = np.isfinite(values)
    if not finite.all():
        walk.give_up(np.unique(np.repeat(rows, many)[~finite]))
    return Lists(first, count, values.tolist())


def _ints(walk: _Walk) -> Lists:
    count, rows = _counts(walk)
    first = np.zeros(len(count), np.int64)
    if not len(rows):
        return Lists(first, count, [])
    walk.move(rows, np.where(count[rows] <= MAX_INTS, walk.pos[rows], _DOUBTFUL))
    owners: list[Longs] = []
    items: list[Longs] = []
    done = 0
    left = rows
    while len(left := left[walk.sure[left] & (count[left] > done)]):
        values, to = walk.long(walk.pos[left])
        narrow = (values >= -0x80000000) & (values <= 0x7FFFFFFF)
        walk.move(left, np.where(narrow, to, _DOUBTFUL))
        owners.append(left)
        items.append(values)
        done += 1
    _close(walk, rows, walk.pos[rows])
    count[rows] = np.where(walk.sure[rows], count[rows], 0)
    if not owners:
        return Lists(first, count, [])
    owner, value = np.concatenate(owners), np.concatenate(items)
    keep = walk.sure[owner]
    owner, value = owner[keep], value[keep]
    first = np.cumsum(count) - count
    return Lists(first, count, value[np.argsort(owner, kind="stable")].tolist())
