"""Records of a flat Avro schema, encoded a field at a time for many records at once: the reader's inverse.

An encoder that goes record by record asks of every field what type it is. Here that is asked once a batch, and what repeats
in a column (names, nulls, empty arrays) is encoded once. Whatever is not plainly of its type raises `NotPlain`: somebody
else has to encode the records one by one, and says which of them is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, repeat
from math import inf, isfinite
from operator import itemgetter
from struct import Struct, pack
from typing import Any, Final

Pieces = Iterable[bytes]
"""Of each record one; without an end where they are all the same."""
Write = Callable[[Sequence[Any]], Pieces]
"""Encodes one field of all records; raises anything for what is not plain."""

_LONG: Final = 1 << 63
_INT: Final = 1 << 31
_PAIR: Final = 1 << 14
"""Values of two bytes of seven bits."""
_ALONE: Final = tuple(bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7]) for n in range(_PAIR))
"""Unsigned numbers of up to 14 bits."""
_MORE: Final = tuple(bytes([n & 127 | 128, n >> 7 | 128]) for n in range(_PAIR))
"""The lowest 14 bits of longer ones."""
_SMALL: Final = _ALONE[::2]
"""Numbers from 0 on, zigzag."""
_pack_double: Final = Struct("<d").pack
_pack_present: Final = Struct("<Bd").pack
_NULL, _PRESENT, _EMPTY = b"\x00", b"\x02", b"\x00"


class NotPlain(ValueError):
    """Records that have to be encoded one by one."""


class ColumnWriter:
    """Encodes records under one schema.

    Parameters
    ----------
    schema : mapping
        A record whose fields are strings, longs, ints, doubles, booleans, enums, unions of null with one of these (null first),
        or arrays of floats, doubles, ints or longs. Logical types are written as what they are made of.

    Raises
    ------
    ValueError
        For any other schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        fields = schema["fields"]
        if len(fields) < 2:
            raise ValueError("records of fewer than two fields are not written by columns")
        self._pick = itemgetter(*(field["name"] for field in fields))
        self._count = len(fields)
        self._writes = [_write(field["name"], field["type"]) for field in fields]

    def write(self, records: Sequence[Mapping[str, Any]], head: bytes = b"") -> list[bytes]:
        """Encode records, each behind a head: byte for byte what an encoder makes of each that goes record by record.

        Parameters
        ----------
        records : sequence of mapping
            Each with all fields of the schema and no other.
        head : bytes
            What stands before every record.

        Raises
        ------
        NotPlain
            When a field is missing, unknown, not finite, out of range or not exactly of the Python type that decoding gives.
        """
        if not records:
            return []
        try:
            if set(map(len, records)) != {self._count}:
                raise NotPlain("a record has fields that the schema lacks, or lacks some")
            columns = zip(*map(self._pick, records), strict=True)
            pieces = [write(column) for write, column in zip(self._writes, columns, strict=True)]
            return list(map(b"".join, zip(repeat(head, len(records)), *pieces, strict=False)))
        except NotPlain:
            raise
        except Exception as error:  # whatever the wrong type happened to trip over
            raise NotPlain(f"{type(error).__name__}: {error}") from error


def _write(name: str, kind: Any) -> Write:
    if isinstance(kind, list):
        if len(kind) != 2 or kind[0] != "null":
            raise ValueError(f"field {name}: only unions of null and one other type are written by columns, not {kind}")
        if kind[1] == "double":
            return _doubles_or_null
        return _nullable(_write(name, kind[1]), _type_of(kind[1]))
    if isinstance(kind, Mapping):
        if kind["type"] == "array" and kind["items"] in _ITEMS:
            return _ITEMS[kind["items"]]
        if kind["type"] == "enum":
            symbols = {symbol: _unsigned(2 * code) for code, symbol in enumerate(kind["symbols"])}
            return lambda column: map(symbols.__getitem__, column)
        kind = kind["type"] if "logicalType" in kind else None
    writes: dict[Any, Write] = {
        "string": _texts, "long": _longs, "int": _ints, "double": _doubles, "boolean": _booleans,
    }  # fmt: skip
    if kind not in writes:
        raise ValueError(f"field {name}: {kind} is not written by columns")
    return writes[kind]


def _type_of(kind: Any) -> type:
    if isinstance(kind, Mapping):
        kind = "string" if kind["type"] == "enum" else kind["type"]
    return {"string": str, "boolean": bool, "long": int, "int": int}.get(kind, object)


def _nullable(write: Write, of: type) -> Write:
    """Write a union of null and what `write` writes, of one Python type."""

    def pieces(column: Sequence[Any]) -> Pieces:
        nulls = column.count(None)
        if nulls == len(column):
            return repeat(_NULL)
        held = [value for value in column if value is not None] if nulls else column
        _all_of(held, of)
        written = (_PRESENT + piece for piece, _ in zip(write(held), held, strict=False))
        if not nulls:
            return written
        return [_NULL if value is None else next(written) for value in column]

    return pieces


def _all_of(values: Iterable[Any], of: type) -> None:
    """See that values are exactly of a type."""
    if set(map(type, values)) != {of}:
        raise NotPlain(f"not all are of type {of.__name__}")


def _texts(column: Sequence[str]) -> Pieces:
    different = set(column)
    _all_of(different, str)
    if 2 * len(different) > len(column):
        return list(map(_text, column))
    if len(different) == 1:
        return repeat(_text(column[0]))
    made = {text: _text(text) for text in different}
    return map(made.__getitem__, column)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _SMALL[len(raw)] + raw  # IndexError for 8,192 bytes or more


def _longs(column: Sequence[int], bound: int = _LONG) -> Pieces:
    low, high = min(column), max(column)
    if low < 0:
        if low < -bound or high >= bound:
            raise NotPlain("a number is out of range")
        return [_unsigned((number << 1) ^ (number >> 63)) for number in column]
    if high < len(_SMALL):
        return [_SMALL[number] for number in column]
    if high >= bound:
        raise NotPlain("a number is out of range")
    return [_unsigned(number << 1) for number in column]


def _ints(column: Sequence[int]) -> Pieces:
    return _longs(column, _INT)


def _unsigned(number: int) -> bytes:
    """Encode a number that is not negative, seven bits a byte."""
    if number < _PAIR:
        return _ALONE[number]
    if number < _PAIR * _PAIR:
        return _MORE[number & 16383] + _ALONE[number >> 14]
    return _MORE[number & 16383] + _MORE[number >> 14 & 16383] + _high(number >> 28)


@lru_cache(maxsize=4096)
def _high(number: int) -> bytes:
    """`_unsigned` of the upper bits: those of times and offsets are the same for minutes."""
    return _unsigned(number)


def _doubles(column: Sequence[float]) -> Pieces:
    _all_of(column, float)
    _all_finite(column)
    return map(_pack_double, column)


def _doubles_or_null(column: Sequence[float | None]) -> Pieces:
    nulls = column.count(None)
    if nulls == len(column):
        return repeat(_NULL)
    if not nulls:
        _all_of(column, float)
        _all_finite(column)
        return map(_pack_present, repeat(2), column)
    held = [value for value in column if value is not None]
    _all_of(held, float)
    _all_finite(held)
    return [_NULL if value is None else _pack_present(2, value) for value in column]


def _all_finite(values: Iterable[Any]) -> None:
    # One sum looks at all of them; of what only overflows when added up, the records are left to others.
    if not isfinite(sum(values)):
        raise NotPlain("a number is not finite")


def _booleans(column: Sequence[bool]) -> Pieces:
    _all_of(column, bool)
    return [b"\x01" if value else b"\x00" for value in column]


def _floats(code: str, most: float) -> Write:
    """Write arrays of floats of a `struct` code, each in one block with the empty one behind it."""
    width = Struct(f"<{code}").size

    def pieces(column: Sequence[list[float]]) -> Pieces:
        _all_of(column, list)
        items = list(chain.from_iterable(column))
        if not items:
            return repeat(_EMPTY)
        _all_of(items, float)
        _all_finite(items)
        if max(items) > most or min(items) < -most:
            raise NotPlain("a number is out of range")
        packed = pack(f"<{len(items)}{code}", *items)
        ends = accumulate(width * len(held) for held in column)
        return [
            _SMALL[len(held)] + packed[end - width * len(held) : end] + _EMPTY if held else _EMPTY
            for held, end in zip(column, ends, strict=True)
        ]

    return pieces


def _numbers(write: Callable[[list[int]], Pieces]) -> Write:
    """Write arrays of numbers as `write` does them, each in one block with the empty one behind it."""

    def pieces(column: Sequence[list[int]]) -> Pieces:
        _all_of(column, list)
        return [_SMALL[len(held)] + b"".join(write(held)) + _EMPTY if held else _EMPTY for held in column]

    return pieces


_ITEMS: Final[dict[str, Write]] = {
    "float": _floats("f", 3.4028234663852886e38),  # largest finite float32
    "double": _floats("d", inf),
    "int": _numbers(_ints),
    "long": _numbers(_longs),
}
