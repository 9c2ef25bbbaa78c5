"""Encoded Avro records to columns of ClickHouse's Native format, without an object for any of them.

Whatever is not plainly a record that is to be stored is only marked: `steersman.codec.Codec` is the one to say what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from columns import column
from columns.avro import ColumnReader
from columns.block import Block
from columns.column import Bools, Longs
from sinks.native import Column, Fixed, Lists, Text, gathered
from steersman.record_checks import MAX_ITEMS, MAX_TEXT


class Reader:
    """Reads records of one schema into columns.

    Parameters
    ----------
    schema : mapping
        As `columns.avro.ColumnReader` wants it.
    times
        Range of the timestamps that are stored, the last excluded; unit: microseconds since 1970 UTC.
    timeless
        A timestamp may be 0, for unknown.
    not_stored
        Symbols, by the name of a field, of records that are not stored; only of fields that are enums.

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
        not_stored: Mapping[str, str] | None = None,
    ):
        self._reader = ColumnReader(schema)
        self._times = times
        self._timeless = timeless
        kinds = {f["name"]: f["type"] for f in schema["fields"]}
        self._time_fields = [name for name, kind in kinds.items() if _is_time(kind)]
        self._not_stored = {name: symbol for name, symbol in (not_stored or {}).items() if _is_enum(kinds.get(name))}

    def read(self, values: Sequence[bytes], starts: Longs, checked: Bools) -> tuple[list[Column], Bools]:
        """Read records.

        Parameters
        ----------
        values
            Kafka values of the records, at least one.
        starts : ndarray, shape (n,), int64
            First byte of the body in each value; unit: bytes.
        checked : ndarray, shape (n,), bool
            Records whose texts and arrays may be long, since the codec has counted them.

        Returns
        -------
        columns : list of Column
            One per field, in their order; empty unless all records are good.
        good : ndarray, shape (n,), bool
            Records that can be stored as they were read. The others are for the codec.
        """
        block = self._reader.read(values, starts)
        good = block.sure & self._in_time(block) & (checked | _short(block))
        for name, symbol in self._not_stored.items():
            kind = block.numbers(name)
            good &= kind.values != kind.symbols.index(symbol)
        if not good.all():
            return [], good
        source = np.frombuffer(block.raw, np.uint8)
        return [_native(source, found) for found in block.columns.values()], good

    def _in_time(self, block: Block) -> Bools:
        good = np.ones(len(block.sure), np.bool_)
        first, last = self._times
        for name in self._time_fields:
            time = block.numbers(name)
            fine = (time.values >= first) & (time.values < last)
            if self._timeless:
                fine |= time.values == 0
            if time.present is not None:
                fine |= ~time.present
            good &= fine
        return good


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, Mapping) and kind["type"] == "enum"


def _is_time(kind: Any) -> bool:
    if isinstance(kind, list):
        return any(map(_is_time, kind))
    return isinstance(kind, Mapping) and kind.get("logicalType") == "timestamp-micros"


def _short(block: Block) -> Bools:
    """Rows without texts and arrays that are longer than allowed; of a text its bytes count, never fewer than characters."""
    short = np.ones(len(block.sure), np.bool_)
    for found in block.columns.values():
        if isinstance(found, column.Texts):
            short &= found.size <= MAX_TEXT
        elif isinstance(found, column.Lists):
            short &= np.diff(found.offsets) <= MAX_ITEMS
    return short


def _native(source: NDArray[np.uint8], found: column.Column) -> Column:
    if isinstance(found, column.Texts):
        return gathered(source, found.start, found.size)
    if isinstance(found, column.Lists):
        return Lists(found.values, found.offsets)
    if found.symbols:
        return _symbols(found)
    return Fixed(found.values, None if found.present is None else ~found.present)


def _symbols(found: column.Numbers) -> Text:
    names = [symbol.encode() for symbol in found.symbols]
    lengths = np.array([len(name) for name in names], np.int64)
    starts = np.cumsum(lengths) - lengths
    sizes = lengths[found.values]
    if found.present is not None:
        sizes = np.where(found.present, sizes, 0)
    return gathered(np.frombuffer(b"".join(names), np.uint8), starts[found.values], sizes)
