"""Columns of strings as numbers: ids of hex digits, and codes of names that repeat."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from columns.block import Block
from columns.column import Bools, Longs, Texts

_MOST: Final = (1 << 63) - 1
_HIGHS: Final = np.uint64(0x8080808080808080)
_ONES: Final = 0x0101010101010101
_FROM_0, _OVER_9, _FROM_A, _OVER_F = (
    np.uint64((0x80 - first) * _ONES) for first in (ord("0"), ord("9") + 1, ord("a"), ord("f") + 1)
)
"""Added to eight bytes below 128, each sets the highest bit of those that are not below a character."""


class HexIds(NamedTuple):
    """A column of ids of one length.

    Attributes
    ----------
    text : bytes
        The ids one behind the other; zeros for rows that hold none.
    digits : int
        Length of an id.
    words : ndarray of uint64, shape (rows, digits / 16)
        Their bits, the highest first.
    valid : ndarray of bool, shape (rows,)
        Whether a row holds so many lower-case hex digits.
    present : ndarray of bool, shape (rows,)
        False for null.
    """

    text: bytes
    digits: int
    words: NDArray[np.uint64]
    valid: Bools
    present: Bools

    @property
    def named(self) -> Bools:
        """Which ids name a trace or span, that is are not all zeros; shape (rows,)."""
        named: Bools = self.valid & self.words.any(axis=1)
        return named

    def one(self, row: int) -> str:
        """Return the id of a row."""
        return self.text[row * self.digits : (row + 1) * self.digits].decode()

    def all_bytes(self) -> list[bytes]:
        """Return the ids of all rows in UTF-8."""
        text, digits = self.text, self.digits
        return [text[at : at + digits] for at in range(0, len(text), digits)]

    def pick(self, rows: Longs) -> list[str]:
        """Return the ids of some rows."""
        text, digits = self.text.decode("ascii"), self.digits
        return [text[at : at + digits] for at in (rows * digits).tolist()]


def hex_ids(block: Block, name: str, digits: int) -> HexIds:
    """Read a column of ids of 16 or 32 hex digits."""
    column = block.texts(name)
    valid = column.size == digits
    # Rows of another length look at the zeros behind the bodies instead.
    start = np.where(valid, column.start, block.rest)
    places = np.ndarray((len(block.raw) - 7,), "<u8", block.raw, strides=(1,))
    found = np.stack([places[start + i] for i in range(0, digits, 8)], axis=1)
    hexes = _are_hex(found)
    if np.count_nonzero(hexes) != hexes.size:
        good = hexes.all(axis=1)
        valid = valid & good
        found.view(np.uint8)[~good] = ord("0")
    text = found.tobytes()
    words = np.frombuffer(bytes.fromhex(text.decode("ascii")), ">u8").astype(np.uint64)
    present = np.ones(len(start), np.bool_) if column.present is None else column.present
    return HexIds(text, digits, words.reshape(len(start), digits // 16), valid, present)


def _are_hex(words: NDArray[np.uint64]) -> Bools:
    """Which words are eight lower-case hex digits."""
    low = words & ~_HIGHS
    digit, letter = (low + _FROM_0) & ~(low + _OVER_9), (low + _FROM_A) & ~(low + _OVER_F)
    are: Bools = ((digit | letter) & ~words & _HIGHS) == _HIGHS
    return are


class _Numbers(dict[bytes, int]):
    """Numbers what it is asked for."""

    def __missing__(self, name: bytes) -> int:
        number = self[name] = len(self)
        return number


def codes_of(column: Texts, rows: Bools) -> tuple[Longs, list[str]]:
    """Number the different strings of some rows.

    Returns
    -------
    codes : ndarray of int64, shape (rows of the block,)
        Number of each row's string, null and empty alike; 0 for rows not asked for.
    names : list of str
        The string of each number.
    """
    wanted = np.flatnonzero(rows & (column.size > 0))
    codes = np.zeros(len(rows), np.int64)
    names = _Numbers({b"": 0})
    if len(wanted):
        raw, start = column.raw, column.start[wanted]
        places = zip(start.tolist(), (start + column.size[wanted]).tolist(), strict=True)
        codes[wanted] = [names[raw[begin:end]] for begin, end in places]
    return codes, [name.decode() for name in names]


def combine(*columns: Longs) -> Longs:
    """Number the different rows of some columns of numbers, none of them negative.

    Parameters
    ----------
    columns : ndarray of int64, shape (rows,)
        At least one; at least one row.

    Returns
    -------
    ndarray of int64, shape (rows,)
        Equal where all columns are equal, and nowhere else.
    """
    numbers, bound = columns[0], int(columns[0].max()) + 1
    for column in columns[1:]:
        size = int(column.max()) + 1
        if size == 1:
            continue
        if bound * size > _MOST:
            numbers = np.unique(numbers, return_inverse=True)[1]
            bound = len(numbers)
        if bound * size > _MOST:
            column = np.unique(column, return_inverse=True)[1]
            size = len(column)
        numbers = numbers * size + column
        bound *= size
    return numbers
