"""Whether the strings that were found are UTF-8, looked at only where they are not plain ASCII."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from columns.column import Texts
from columns.cursor import Cursor

_ROWS: Final = 2000
"""Looked at together: what is counted of them fits in a cache."""


def check_texts(cursor: Cursor, columns: Iterable[Texts]) -> None:
    """Make the rows doubtful that hold a string which is no UTF-8; all fields have been read."""
    if cursor.sure.all() and np.count_nonzero(cursor.bytes & 0x80) == cursor.high:
        return  # every byte above 127 belongs to a head or a number, so all strings are ASCII
    texts = list(columns)
    for first in range(0, len(cursor.sure), _ROWS):
        _check_rows(cursor, texts, first, min(first + _ROWS, len(cursor.sure)))


def _check_rows(cursor: Cursor, columns: Iterable[Texts], first: int, last: int) -> None:
    begin, end = cursor.bounds[first], cursor.bounds[last]
    before = np.zeros(end - begin + 1, np.int32)  # bytes above 127 before each place
    np.cumsum(cursor.bytes[begin:end] >> 7, dtype=np.int32, out=before[1:])
    for column in columns:
        rows = first + np.flatnonzero((column.size[first:last] > 0) & cursor.sure[first:last])
        starts = column.start[rows]
        ends = starts + column.size[rows]
        foreign = before[ends - begin] != before[starts - begin]
        for row, start, stop in zip(*(part[foreign].tolist() for part in (rows, starts, ends)), strict=True):
            cursor.sure[row] = _is_utf8(cursor.raw[start:stop])


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
