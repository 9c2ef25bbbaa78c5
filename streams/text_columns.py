"""Columns of strings as numbers: ids of hex digits, and codes of names that repeat."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from columns.block import Block
from columns.column import Bools, Longs, Texts

_IS_HEX: Final = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", np.uint8))


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
    chars = found.view(np.uint8)
    good = _IS_HEX[chars].all(axis=1)
    if not good.all():
        valid = valid & good
        chars[~good] = ord("0")
    text = chars.tobytes()
    words = np.frombuffer(bytes.fromhex(text.decode("ascii")), ">u8").astype(np.uint64)
    present = np.ones(len(start), np.bool_) if column.present is None else column.present
    return HexIds(text, digits, words.reshape(len(start), digits // 16), valid, present)


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


def combine(first: Longs, second: Longs) -> Longs:
    """Number the different pairs of two columns of numbers, none of them negative and all below the number of rows or so."""
    if not second.any():
        return first
    pairs: Longs = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]
    return pairs
